"""Collections: made, described, listed and deleted."""

from flask.testing import FlaskClient


def test_a_collection_from_its_making_to_its_end(client: FlaskClient) -> None:
    path = "/v1/collections/handbook"
    assert client.get(path).json["code"] == "collection_not_found"
    assert client.put(path, json={"description": "手册"}).status_code == 201
    changed = client.put(path, json={"description": "员工手册"})
    assert (changed.status_code, changed.json["description"]) == (200, "员工手册")
    listed = client.get("/v1/collections").json["collections"]
    assert [item["name"] for item in listed] == ["handbook"]
    assert listed[0]["recipe"]["chunker"]
    assert client.delete(path).json == {"name": "handbook", "documents": 0}
    assert client.delete(path).status_code == 404
