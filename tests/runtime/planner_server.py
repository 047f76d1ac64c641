"""An OpenAI-compatible endpoint in a process of its own: real HTTP, answers that a table gives.

python -m tests.runtime.planner_server      prints its port
"""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PLANS: dict[str, Any] = {
    "tidy up": {"steps": ["put the red cube in the blue bowl", "lift the white ball"], "problem": ""},
    "fly to the moon": {"steps": [], "problem": "this arm stands on a table"},
    "juggle": {"steps": ["juggle three balls"], "problem": ""},
    "lie": {"plan": "of another shape"},
}


MODEL = "plans:1b"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        self._answer(models) if self.path == "/v1/models" else self.send_error(404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = asked["messages"][-1]["content"]
        form = asked["response_format"]
        # What strict structured output asks of a client.
        schema = form["json_schema"]["schema"]
        sound = form["type"] == "json_schema" and form["json_schema"]["strict"] is True
        sound = sound and schema["additionalProperties"] is False and self.path == "/v1/chat/completions"
        sound = sound and "put the red cube in the blue bowl" in asked["messages"][0]["content"]
        if text == "think long":
            time.sleep(3.0)
        if asked["model"] != MODEL:
            self.send_error(404)
            return
        if text == "break" or not sound:
            self.send_error(500)
            return
        content = "no JSON" if text == "babble" else json.dumps(PLANS.get(text, PLANS["tidy up"]))
        self._answer({"choices": [{"message": {"role": "assistant", "content": content}}]})

    def _answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
