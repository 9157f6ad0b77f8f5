"""A mobile client of the API."""

import json
import uuid


class App:
    """A mobile client. It knows its app key, its session token, and nothing else."""

    def __init__(self, client, token=None, key="dev"):
        self.client, self.token, self.key = client, token, key

    def __call__(self, method, path, data=None, *, files=None, **headers):
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if self.key:
            headers.setdefault("X-App-Key", self.key)
        address = path if path.startswith(("/", "http")) else f"/api/v1/{path}"
        send = getattr(self.client, method)
        if files is not None:
            answer = send(address, {**(data or {}), **files}, headers=headers)
        elif data is not None:
            answer = send(address, json.dumps(data), content_type="application/json", headers=headers)
        else:
            answer = send(address, headers=headers)
        # Whatever is asked, an error has one shape, and every answer can be found in the log.
        assert answer["X-Request-ID"]
        if answer.status_code >= 400 and address.startswith("/api/"):
            assert answer["Content-Type"] == "application/problem+json", answer.content
            body = answer.json()
            assert {"type", "title", "status", "code", "detail", "retryable", "request_id"} <= set(body)
            assert (body["status"], body["request_id"]) == (answer.status_code, answer["X-Request-ID"])
        return answer

    def sign(self, what, email, password):
        answer = self("post", f"/_allauth/app/v1/auth/{what}", {"email": email, "password": password})
        if answer.status_code == 200:
            self.token = answer.json()["meta"]["session_token"]
        return answer

    def run(self, **fields):
        key = fields.pop("key", None) or uuid.uuid4().hex
        return self("post", "runs", fields, **{"Idempotency-Key": key})


def code(answer):
    """Return an answer's status and its error code, which is empty when it is none."""
    return answer.status_code, answer.json().get("code", "")
