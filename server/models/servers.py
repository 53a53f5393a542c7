"""Embedders on servers, as settings name them."""

from server.models.contract import Embedder
from server.models.endpoint import parse
from server.models.reach import check_reach
from server.models.served import Serving
from server.settings import Settings

PROXY_SETTING = "TANYUAN_EMBEDDER_PROXY"


def open_embedder(kind: str, model: str, settings: Settings) -> Embedder:
    """The embedder ``kind:model``. Asks its server only for what was never learnt of the model.

    Raises ConfigurationError, also for a server that TANYUAN_OFFLINE keeps from being asked, and
    EmbedderUnavailable.
    """
    serving = Serving(
        seconds=settings.embedder_timeout,
        # The other half is for the search by words, where the server is silent.
        query_seconds=min(settings.search_timeout / 2, settings.embedder_timeout),
        facts=settings.data / "embedders.json",
        query_prefix=settings.embedder_query_prefix,
        passage_prefix=settings.embedder_passage_prefix,
        max_tokens=settings.embedder_max_tokens,
        proxy=settings.embedder_proxy,
    )

    def check(url: str, setting: str) -> None:
        hosts = {setting: parse(url, setting).host}
        if settings.embedder_proxy:
            proxy = parse(settings.embedder_proxy, PROXY_SETTING, credentials=True)
            hosts[PROXY_SETTING] = proxy.host
        for name, host in hosts.items():
            asker = f"The embedder {kind}:{model}"
            check_reach(host, setting=name, exceptions=settings.exceptions, asker=asker)

    if kind == "openai":
        from server.models import openai  # noqa: PLC0415 - only the one chosen

        check(settings.openai_url, openai.URL_SETTING)
        return openai.OpenAIEmbedder(
            model,
            url=settings.openai_url,
            key=settings.openai_api_key,
            dimensions=settings.openai_dimensions,
            query_model=settings.openai_query_model,
            serving=serving,
        )
    if kind == "ernie":
        from server.models import ernie  # noqa: PLC0415

        check(settings.ernie_url, ernie.URL_SETTING)
        return ernie.ErnieEmbedder(
            model,
            url=settings.ernie_url,
            key=settings.ernie_api_key,
            secret_key=settings.ernie_secret_key,
            serving=serving,
        )
    from server.models import ollama_embedder  # noqa: PLC0415

    check(ollama_embedder.address(settings.ollama_host), "OLLAMA_HOST")
    return ollama_embedder.OllamaEmbedder(
        model,
        host=settings.ollama_host,
        keep_alive=settings.generator_keep_alive,
        serving=serving,
    )
