"""A small collection on the embedded store, with questions for it."""

import random
from collections.abc import Iterator

import pytest

from server.analysis.analyzer import JiebaAnalyzer
from server.documents import Document
from server.finetuning.corpus import Corpus
from server.ingest.chunker import Chunker
from server.retrieval.searcher import Searcher
from server.stores.embedded.store import EmbeddedStore
from tests.fakes import count_tokens, live_collections, make_indexer

WORDS = [
    *(
        "日期",
        "金额",
        "经手人",
        "发票",
        "车次",
        "座位",
        "酒店",
        "天数",
        "地点",
        "主管",
        "签字",
        "编号",
    ),
    *(
        "附件",
        "原因",
        "部门",
        "岗位",
        "工龄",
        "银行",
        "账号",
        "合作方",
        "期限",
        "违约",
        "保管",
        "借用",
    ),
    *(
        "归还",
        "库存",
        "入库",
        "出库",
        "讲师",
        "课程",
        "学时",
        "考核",
        "简历",
        "面试",
        "试用",
        "薪资",
    ),
]
CHUNKER = Chunker(count_tokens, 128)
TOPICS = ("报销", "年假", "加班", "采购", "出差", "培训", "招聘", "合同", "印章", "仓库")


def detail(of: str) -> str:
    """A sentence of its own for each thing that it is of."""
    words = random.Random(of).sample(WORDS, 14)
    return f"{of}须写明{'、'.join(words)}。"


def documents() -> list[Document]:
    """Two of each topic, of two chapters each; the ``copy`` of the first says the same again."""
    made = [
        Document.create(
            id=f"{topic}-{number}",
            title=f"{topic}管理规定第{number}版",
            text="\n\n".join(
                f"# 第{part}章 {topic}的{what}\n\n"
                + f"{topic}{what}第{number}版：由{topic}专员在第{number + part}个工作日之前办理，"
                f"逾期须由部门经理说明{what}的理由，并在{topic}登记表上写明{what}的日期、金额和经手人。"
                for part, what in enumerate(("申请", "审批"), 1)
            ),
        )
        for topic in TOPICS
        for number in (1, 2)
    ]
    first = made[0]
    return [*made, Document.create(id="copy", title="旧版", text=first.text)]


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    opened = EmbeddedStore(tmp_path_factory.mktemp("finetuning") / "store")
    indexer = make_indexer(opened, JiebaAnalyzer(), None, CHUNKER)
    indexer.ensure_collection("default")
    indexer.put("default", documents(), refresh=True)
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def searcher(store: EmbeddedStore) -> Searcher:
    live = live_collections(store, JiebaAnalyzer(), None, CHUNKER)
    return Searcher(store=store, live=live, reranker=None)


@pytest.fixture(scope="package")
def corpus(store: EmbeddedStore) -> Corpus:
    return Corpus(store.owned_chunks("default"))
