"""A program is told of the end of a task, and reads in the market's events what happened before:
hear_of_ends.py NETWORK_FILE"""

import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import SimpleQueue

from sealdeal.model.orders import Params
from sealdeal.model.types import RLC
from sealdeal.sdk.events import verify_webhook
from sealdeal.sdk.images import build_app_image
from sealdeal.sdk.network import Network
from sealdeal.sdk.sync import Sealdeal

heard: SimpleQueue[tuple[dict[str, str], bytes]] = SimpleQueue()


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        heard.put((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), Hook)
threading.Thread(target=server.serve_forever, daemon=True).start()
network = Network.load(Path(sys.argv[1]))
with (
    Sealdeal.newcomer(network, 20 * RLC, in_escrow=20 * RLC) as alice,
    tempfile.TemporaryDirectory() as folder,
):
    hook = alice.add_webhook(f"http://127.0.0.1:{server.server_port}/")
    assert hook.secret  # shown this once
    headers, body = heard.get(timeout=10)
    assert verify_webhook(hook.secret, headers, body)["type"] == "webhook.ping"

    (Path(folder) / "sealdeal.toml").write_text('name = "brief"\nentrypoint = ["python3", "main.py"]\n')
    (Path(folder) / "main.py").write_text(
        "import json, os\n"
        "out = os.environ['IEXEC_OUT']\n"
        "open(out + '/done', 'w').close()\n"
        "json.dump({'deterministic-output-path': out + '/done'}, open(out + '/computed.json', 'w'))\n"
    )
    app = alice.publish_app(build_app_image(Path(folder), cache=Path(folder) / "cache"))
    deal = alice.deal_of(alice.request(app.address, params=Params()))

    headers, body = heard.get(timeout=300)
    message = verify_webhook(hook.secret, headers, body)  # raises for what the market did not send
    print(f"told: {message['type']} {message['data']['taskid']}")
    assert message["type"] == "task.completed" and message["data"]["index"] == 0

    for event in alice.events(dealid=deal.dealid, after=0):  # from the first that is kept
        print(f"event {event.id}: {event.name}")
        if event.name == "task_completed":
            break  # another time: alice.events(dealid=deal.dealid, after=event.id)

    alice.drop_webhook(hook.id)
    assert alice.webhooks() == []
