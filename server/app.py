"""The composition root: the only place that knows concrete adapters."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from flask import Flask

from server.analysis.analyzer import JiebaAnalyzer
from server.analysis.dictionary import UserDictionary
from server.answering.answerer import Answerer
from server.feedback import Feedback
from server.ingest.chunker import chunker_for
from server.ingest.derivation import recipe_of
from server.ingest.indexer import Indexer
from server.lifecycle.dictionary import DictionaryChanges
from server.lifecycle.rebuild import Rebuilder
from server.live import LiveCollections
from server.models.choice import Choice, choose_embedder, choose_generator, choose_reranker
from server.models.contract import Embedder
from server.models.embedders import Embedders
from server.models.passage_vectors import PassageVectors
from server.models.remembering_sparse import remembering
from server.retrieval.lexicons import Lexicons
from server.retrieval.profiles import Profiles
from server.retrieval.query_log import QueryLog
from server.retrieval.searcher import Searcher
from server.retrieval.suggest import Suggester
from server.settings import Settings
from server.stores.contract import Store
from server.stores.embedded.vectors import VectorEngine
from server.vocabulary import Vocabulary
from server.web.application import build
from server.web.keys import Keys
from server.web.readiness import Readiness
from server.web.services import Services

_ANALYZERS = 4  # that all parts share; one takes a fifth of a second to make


def create_app(settings: Settings | None = None) -> Flask:
    """The application, as gunicorn's factory: made in each worker, after the fork."""
    services = open_services(settings or Settings.load(), warm_up=True)
    app = build(services)
    app.extensions["tanyuan"] = services
    return app


def open_services(settings: Settings, *, warm_up: bool = False) -> Services:
    """Wire everything up. Models are loaded at first use, or at once in the background.

    Raises ConfigurationError for what a setting names and can't be had.
    """
    dictionary = open_dictionary(settings)
    make_analyzer = lru_cache(_ANALYZERS)(JiebaAnalyzer)
    analyzer = make_analyzer(dictionary)
    store = open_store(settings)
    embedder = choose_embedder(settings)
    reranker = choose_reranker(settings)
    generator = choose_generator(settings)
    missing: dict[str, str] = {
        choice.component: choice.reason
        for choice in (embedder, reranker, generator)
        if choice.missing
    }
    live = open_live(settings, store, dictionary, make_analyzer, embedder)
    vocabulary = Vocabulary(store.notes)
    indexer = Indexer(store, live)
    searcher = Searcher(
        store=store,
        live=live,
        reranker=reranker.adapter,
        light=settings.reranker != "none",
        missing=missing,
        seconds=settings.search_timeout,
        rerank_seconds=settings.rerank_timeout,
        rerank_top_n=settings.rerank_top_n,
    )
    query_log = QueryLog.in_folder(settings.data) if settings.query_log else None
    suggester = Suggester(store=store, live=live, lexicons=Lexicons(store, live, query_log))
    answerer = Answerer(
        searcher=searcher,
        analyzer=analyzer,
        generator=generator.adapter,
        missing=missing,
        passages=settings.answer_passages,
        answer_tokens=settings.generator_answer_tokens,
    )
    readiness = Readiness(store, embedder, reranker, generator)
    if warm_up:
        readiness.warm_up()
    return Services(
        settings=settings,
        store=store,
        indexer=indexer,
        searcher=searcher,
        suggester=suggester,
        answerer=answerer,
        rebuilder=Rebuilder(store, live, keep=settings.keep_generations),
        vocabulary=vocabulary,
        dictionaries=DictionaryChanges(
            store, live, vocabulary, make_analyzer, dictionary, keep=settings.keep_generations
        ),
        profiles=Profiles(store.notes),
        feedback=Feedback(store.notes),
        keys=Keys.in_folder(settings.data),
        query_log=query_log,
        choices=(
            ("store", store.kind, "TANYUAN_STORE names it"),
            *(
                (choice.component, choice.name, choice.reason)
                for choice in (embedder, reranker, generator)
            ),
        ),
        components=readiness.components,
    )


def open_dictionary(settings: Settings) -> UserDictionary:
    """What collections that this process makes begin with."""
    file = settings.dictionary_file
    return UserDictionary.load(file) if file else UserDictionary()


def open_live(
    settings: Settings,
    store: Store,
    dictionary: UserDictionary,
    make_analyzer: Callable[[UserDictionary], JiebaAnalyzer],
    embedder: Choice[Embedder],
) -> LiveCollections:
    """What collections are served with: their own recipes' parts, or those that settings pin."""
    pins = {
        "embedder": settings.embedder != "auto",
        "chunker": settings.chunk_tokens > 0,
        "windows": not settings.windows,
    }
    analyzer = make_analyzer(dictionary)
    chunker = chunker_for(embedder.adapter, settings.chunk_tokens)
    return LiveCollections(
        store,
        own=recipe_of(analyzer, embedder.adapter, chunker, windowed=settings.windows),
        dictionary=dictionary,
        analyzer=analyzer,
        make_analyzer=make_analyzer,
        embedders=Embedders(
            _remembering(embedder, settings),
            # Its name states a precision that makes other vectors.
            lambda model: _remembering(
                choose_embedder(replace(settings, embedder=model, precision="auto")), settings
            ),
        ),
        pinned=[name for name, pinned in pins.items() if pinned],
        no_embedder=embedder.reason,
    )


def _remembering(choice: Choice[Embedder], settings: Settings) -> Embedder | None:
    if choice.adapter is None:
        return None
    most = settings.vector_cache
    return remembering(
        choice.adapter, PassageVectors.in_folder(settings.data, most) if most else None
    )


def open_store(settings: Settings) -> Store:
    """The store that TANYUAN_STORE names; its library is imported only when it is the one."""
    if settings.store == "elasticsearch":
        from server.stores.elasticsearch.store import ElasticsearchStore  # noqa: PLC0415

        return ElasticsearchStore(
            settings.elasticsearch_url,
            prefix=settings.index_prefix,
            api_key=settings.elasticsearch_api_key,
            user=settings.elasticsearch_user,
            password=settings.elasticsearch_password,
            ca_file=settings.elasticsearch_ca,
            shards=settings.elasticsearch_shards,
            replicas=settings.elasticsearch_replicas,
            timeout=settings.elasticsearch_timeout,
        )
    from server.stores.embedded.store import EmbeddedStore  # noqa: PLC0415

    return EmbeddedStore(settings.data / "store", engine=open_engine(settings))


def open_engine(settings: Settings) -> VectorEngine:
    """What finds nearest vectors for the stores that keep documents and BM25 in the data folder."""
    if settings.store == "chroma":
        from server.stores.chroma.engine import ChromaEngine  # noqa: PLC0415

        return ChromaEngine(settings.data / "store" / "chroma")
    if settings.store == "milvus":
        from server.stores.milvus.engine import MilvusEngine  # noqa: PLC0415

        return MilvusEngine(
            settings.data / "store", uri=settings.milvus_uri, token=settings.milvus_token
        )
    from server.stores.embedded.faiss_index import FaissEngine  # noqa: PLC0415

    return FaissEngine()
