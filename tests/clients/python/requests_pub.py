"""Publisher: requests. put, patch and delete are the HTTP methods of the name; message is POST to the record's URL."""

import contract
import requests

METHODS = {"put": "PUT", "patch": "PATCH", "delete": "DELETE", "message": "POST"}
args = contract.arguments()
session = requests.Session()
session.trust_env = False
session.headers.update(contract.auth_headers(args))
contract.ready()


def handle(command):
    op = command["op"]
    url = args.http.rstrip("/") + "/" + command["path"]
    if op == "delete":
        response = session.request("DELETE", url, timeout=15)
    else:
        body, content_type = contract.payload_of(command)
        response = session.request(METHODS[op], url, data=body, headers={"Content-Type": content_type}, timeout=15)
    answer = {"ok": response.ok, "status": response.status_code}
    if not response.ok:
        answer["error"] = response.text
    return answer


contract.commands(handle)
