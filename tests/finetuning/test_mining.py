from server.finetuning.corpus import bigrams, is_near
from server.finetuning.mining import Miner, ranked
from server.finetuning.questions import Question
from server.finetuning.split import Split


def divided(corpus, *held):
    return Split(
        train=(),
        held_out=(),
        documents=frozenset(held),
        texts=frozenset(corpus.digests(held)),
    )


def mined(searcher, corpus, question, *held, negatives=6):
    miner = Miner(searcher, "default", corpus, divided(corpus, *held), negatives=negatives, seed=1)
    return miner.examples([question], lambda done, total: None)


def documents_of(corpus, texts, *, bare=False):
    by_text = {}
    for piece in corpus.pieces.values():
        by_text.setdefault(piece.read(bare=bare), set()).add(piece.chunk.document_id)
    return {key for text in texts for key in by_text[text]}


def test_answers_are_the_passages_that_search_takes_for_the_best(searcher, corpus):
    question = Question(text="报销申请由谁办理", source="judged", grades={"报销-2": 1})
    (example,) = mined(searcher, corpus, question)
    best = next(
        each for each in ranked(searcher, "default", question.text) if each.startswith("报销-2:")
    )
    assert example.positive == corpus.pieces[best].whole
    assert len(set(example.negatives)) == 6


def test_wrong_answers_are_no_answers_no_copies_and_not_held_out(searcher, corpus):
    question = Question(text="报销管理规定", source="judged", grades={"报销-1": 1})
    (example,) = mined(searcher, corpus, question, "年假-1", negatives=12)
    wrong = documents_of(corpus, example.negatives)
    assert wrong.isdisjoint({"报销-1", "copy", "年假-1"})
    answer = bigrams(example.positive)
    assert not any(is_near(answer, bigrams(text)) for text in example.negatives)


def test_what_was_judged_wrong_comes_first(searcher, corpus):
    grades = {"报销-2": 1, "采购-1": 0}
    question = Question(text="报销 采购 审批", source="feedback", grades=grades)
    (example,) = mined(searcher, corpus, question)
    assert documents_of(corpus, example.negatives[:1]) == {"采购-1"}


def test_title_questions_read_passages_without_their_path(searcher, corpus):
    question = Question(
        text="报销管理规定第2版", source="titles", grades={"报销-2": 1}, passages=("报销-2:0",)
    )
    (example,) = mined(searcher, corpus, question)
    assert example.positive == corpus.pieces["报销-2:0"].bare
    assert documents_of(corpus, example.negatives, bare=True)


def test_the_same_seed_gives_the_same_examples(searcher, corpus):
    question = Question(text="合同审批", source="judged", grades={"合同-1": 1, "合同-2": 1})
    assert mined(searcher, corpus, question) == mined(searcher, corpus, question)
