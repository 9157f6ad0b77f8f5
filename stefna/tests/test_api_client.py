"""A client generated from the API's description does what a person does with the app."""

import importlib
import io
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from stefna.tests.waiting import WAIT_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """Generate the client anew, and make it importable."""
    folder = tmp_path_factory.mktemp("generated")
    command = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--meta", "none"]
    command += ["--path", str(ROOT / "docs" / "openapi.yaml"), "--output-path", str(folder / "stefna_client")]
    subprocess.run(command, check=True, capture_output=True)
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"stefna_client.{name}")
    sys.path.remove(str(folder))


def test_generated_client_makes_the_whole_journey(server, generated):
    server.start()
    clients, models, types = generated("client"), generated("models"), generated("types")

    def call(name, client, *arguments, **options):
        return generated(f"api.{name}").sync_detailed(*arguments, client=client, **options)

    key = {"X-App-Key": "dev"}
    visitor = clients.Client(server.url, headers=key)
    signed_up = call(
        "authentication_account.auth_signup_post",
        visitor,
        body=models.Signup.from_dict({"email": "erin@example.com", "password": "correct-horse-battery"}),
    )
    assert signed_up.status_code == 200
    token = signed_up.parsed.meta.session_token
    erin = clients.AuthenticatedClient(server.url, token=token, headers=key, timeout=WAIT_SECONDS)

    file = types.File(io.BytesIO((ROOT / "static/img/samples/coffee.jpg").read_bytes()), "coffee.jpg", "image/jpeg")
    photo = call("photos.photos_create", erin, body=models.PhotoUploadRequest(photo=file)).parsed
    asked = models.RunByIdRequest(photo_id=photo.id, preset="express_enhance")
    started = call("runs.runs_create", erin, body=asked, idempotency_key=uuid.uuid4().hex)
    assert started.status_code == 202
    run = started.parsed
    for _ in range(20):
        if run.poll_after_ms is None:
            break
        run = call("runs.runs_retrieve", erin, run.id, prefer="wait=20").parsed
    assert run.status == models.RunStatusEnum.SUCCEEDED
    assert run.result.width == photo.width

    download = call("runs.runs_download_retrieve", erin, run.id)
    assert download.status_code == 200
    assert download.content.startswith(b"\xff\xd8\xff")
    assert call("runs.runs_retry_create", erin, run.id).parsed.code == "not_retryable"
    assert [one.id for one in call("runs.runs_list", erin).parsed.results] == [run.id]
    assert call("runs.runs_destroy", erin, run.id).status_code == 204
    assert call("runs.runs_retrieve", erin, run.id).parsed.code == "not_found"
