"""The one hierarchy of errors.

Adapters map every vendor's error to one of these, so no caller needs to know a vendor. ``code`` is
stable: programs may rely on it. The message says what went wrong and what to do about it, and may be
shown to a user, so it holds no secret. HTTP statuses stand in ``server/web/problems.py``.
"""


class TanyuanError(Exception):
    """Base of all errors that this product raises on purpose."""

    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(TanyuanError):
    """The caller sent something that can't be accepted; ``field`` names the part, if there is one."""

    code = "invalid_input"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class PageTooDeep(InvalidInput):
    """``from`` + ``size`` goes past the deepest hit that can be paged to."""

    code = "page_too_deep"


class PayloadTooLarge(TanyuanError):
    code = "payload_too_large"


class ConfigurationError(TanyuanError):
    """A setting is wrong, or what it names can't be had; the message names the setting."""

    code = "configuration_error"


class Unauthorized(TanyuanError):
    """No key, or one that is not known."""

    code = "unauthorized"


class Forbidden(TanyuanError):
    """The key is known but its role does not allow this."""

    code = "forbidden"


class CollectionNotFound(TanyuanError):
    code = "collection_not_found"


class CollectionExists(TanyuanError):
    code = "collection_exists"


class DocumentNotFound(TanyuanError):
    code = "document_not_found"


class RevisionConflict(TanyuanError):
    """The document's revision is not the one that the caller named, or another write won."""

    code = "revision_conflict"


class RecipeMismatch(TanyuanError):
    """The collection was indexed by another recipe than this process uses (names both)."""

    code = "recipe_mismatch"


class GenerationNotFound(TanyuanError):
    code = "generation_not_found"


class VersionNotFound(TanyuanError):
    """The dictionary, the synonyms, the stop words or the profile have no version of that number."""

    code = "version_not_found"


class NoteConflict(TanyuanError):
    """A note is not at the version that the writer expected: another process was faster."""

    code = "note_conflict"


class FenceLost(TanyuanError):
    """The fence was lifted by others, so that nothing may be promoted on its ground."""

    code = "fence_lost"


class RebuildRunning(TanyuanError):
    """Another rebuild, roll back or dictionary change of the collection is under way."""

    code = "rebuild_running"


class RebuildNotFound(TanyuanError):
    code = "rebuild_not_found"


class RebuildFailed(TanyuanError):
    """The new generation can't be made or did not pass; the live one is as it was."""

    code = "rebuild_failed"


class Stopped(TanyuanError):
    """Somebody asked for a rebuild to stop; it can be resumed or abandoned."""

    code = "stopped"


class StoreUnavailable(TanyuanError):
    """The store can't be reached or can't serve now; trying again later may work."""

    code = "store_unavailable"


class Fenced(StoreUnavailable):
    """A generation is about to become live, so writes wait; for a second, as a rule."""

    code = "fenced"


class GenerationChanged(StoreUnavailable):
    """Another generation, or another edition of it, is live than the one that was meant.

    ``claimed``: the revision that a refused write holds by now, to be named as ``if_revision`` when it
    is made again (None: it holds none); ``created``: whether it would have created the document.
    """

    code = "generation_changed"

    def __init__(
        self, message: str, *, claimed: int | None = None, created: bool | None = None
    ) -> None:
        super().__init__(message)
        self.claimed = claimed
        self.created = created


class StoreFull(StoreUnavailable):
    """The store refuses writes for lack of room (disk full, flood-stage watermark)."""

    code = "store_full"


class StoreTimeout(StoreUnavailable):
    code = "store_timeout"


class ModelUnavailable(TanyuanError):
    """A model can't be reached, loaded or used now."""

    code = "model_unavailable"


class EmbedderUnavailable(ModelUnavailable):
    code = "embedder_unavailable"


class RerankerUnavailable(ModelUnavailable):
    code = "reranker_unavailable"


class GeneratorUnavailable(ModelUnavailable):
    """The generator's server can't be reached, or none is configured."""

    code = "generator_unavailable"


class GeneratorModelMissing(GeneratorUnavailable):
    """The generator's server answers but lacks the model; the message names the command to get it."""

    code = "generator_model_missing"


class GeneratorTimeout(GeneratorUnavailable):
    code = "generator_timeout"


class GeneratorInterrupted(GeneratorUnavailable):
    """The generator failed in the middle of an answer."""

    code = "generator_interrupted"
