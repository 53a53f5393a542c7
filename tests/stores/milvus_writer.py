"""``embedded_writer`` with vectors in Milvus Lite: ``python -m tests.stores.milvus_writer FOLDER
COLLECTION NAME COUNT``."""

import sys
from pathlib import Path

from server.stores.embedded.store import EmbeddedStore
from server.stores.milvus.engine import MilvusEngine
from tests.stores.embedded_writer import put_forever

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    store = EmbeddedStore(folder, engine=MilvusEngine(folder))
    put_forever(store, sys.argv[2], sys.argv[3], int(sys.argv[4]))
