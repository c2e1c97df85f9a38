"""A receiver of webhooks as an app's developers write one: verifies each delivery twice, once with the public
`standardwebhooks` library and once in plain Python by the platform's own header. Started by tests/it/program/webhooks.rs.

    receive.py SECRET

Prints its port, then one line for each delivery: what is wrong with it, or `ok` and the event's id.
Exit code 77: the library is not installed.
"""

import hashlib
import hmac
import http.server
import json
import sys
import time

try:
    from standardwebhooks import Webhook, WebhookVerificationError
except ImportError:
    sys.exit(77)

SECRET = sys.argv[1]


def by_platform_header(body, header, secret):
    """The platform's scheme: the whole secret is the key, and `t` and the raw body are signed."""
    parts = dict(part.split("=", 1) for part in header.split(","))
    if abs(time.time() - int(parts["t"])) > 300:
        return False
    message = parts["t"].encode() + b"." + body
    expected = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts["v1"])


def by_standard_webhooks(body, headers, secret):
    try:
        Webhook(secret).verify(body, headers)
        return True
    except WebhookVerificationError:
        return False


def judge(body, headers):
    other = "whsec_" + "A" * 43 + "="
    signature = headers["medblocks-signature"]
    checks = {
        "the platform's header": by_platform_header(body, signature, SECRET),
        "a wrong secret, platform": not by_platform_header(body, signature, other),
        "a changed body, platform": not by_platform_header(body + b" ", signature, SECRET),
        "Standard Webhooks": by_standard_webhooks(body, headers, SECRET),
        "a wrong secret, standard": not by_standard_webhooks(body, headers, other),
        "a changed body, standard": not by_standard_webhooks(body.replace(b"event", b"evenT"), headers, SECRET),
        "the id": json.loads(body)["id"] == headers["webhook-id"],
    }
    wrong = [name for name, good in checks.items() if not good]
    return "wrong: " + ", ".join(wrong) if wrong else "ok " + headers["webhook-id"]


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        verdict = judge(body, {name.lower(): value for name, value in self.headers.items()})
        self.send_response(204 if verdict.startswith("ok") else 400)
        self.end_headers()
        print(verdict, flush=True)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
