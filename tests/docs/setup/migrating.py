"""What docs/migrating.md takes for given: saved data of RAGatouille, Chroma and LlamaIndex."""

import gzip
import json
from pathlib import Path

from llama_index.core import StorageContext
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from markdown_pages import ROOT

ragatouille = Path(".ragatouille/colbert/indexes/notes")
ragatouille.mkdir(parents=True)
(ragatouille / "collection.json").write_text(json.dumps(["Owls hunt at night.", "Ants live in colonies."]))
(ragatouille / "pid_docid_map.json").write_text(json.dumps({"0": "owl", "1": "ant"}))

Path("chroma").mkdir()
database = ROOT / "tests" / "core" / "data" / "chroma" / "chroma-1.5.9.sqlite3.gz"
Path("chroma/chroma.sqlite3").write_bytes(gzip.decompress(database.read_bytes()))

node = TextNode(id_="node", text="Owls hunt at night.")
node.relationships = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="birds.md")}
context = StorageContext.from_defaults()
context.docstore.add_documents([node])
context.persist("storage")
