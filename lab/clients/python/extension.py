"""What the API server calls: a webhook that refuses everything, and an API of its own. HTTPS; the standard library only.

Arguments: port, certificate, key, and the name by which the answers can be told.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, CERTIFICATE, KEY, NAME = int(sys.argv[1]), *sys.argv[2:]
GROUP = "/apis/extension.gantry.test/v1"
RESOURCES = {
    "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "extension.gantry.test/v1",
    "resources": [{"name": "greetings", "singularName": "greeting", "namespaced": False, "kind": "Greeting", "verbs": ["list"]}],
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        answers = {GROUP: RESOURCES, f"{GROUP}/greetings": {"kind": "GreetingList", "from": NAME}, "/": {"from": NAME}}
        answer = answers.get(self.path.partition("?")[0])
        self.answer(200 if answer else 404, answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": f"said on {NAME}"}}
        self.answer(200, {"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response})

    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("", PORT), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
