"""Files of a stranger, sent to a real server: no answer is worse than a refusal, and nobody else notices."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import small
from generation.tests.images.files import CRASH, lossless_webp, many_scans
from generation.tests.images.mutations import mutations
from stefna.tests.faults import files
from stefna.tests.faults.web import Web, signed_in
from stefna.tests.waiting import wait_until

MUTATIONS = 200
INNOCENT = small("coffee")
REFUSED = {413, 415, 422}


@pytest.fixture(scope="module")
def web(install, tmp_path_factory):
    made = Web(install, tmp_path_factory.mktemp("web"), DAILY_RUN_LIMIT="0", MAX_ACTIVE_RUNS="0")
    yield made
    made.end()


@pytest.fixture
def sender(web):
    """Send a photo to the API, as several members in turn: each may send only so many a minute."""
    members = itertools.cycle([web.server.call("member") for _ in range(4)])

    def send(data):
        headers = signed_in(next(members)) | {"Content-Type": files.FORM}
        return web.ask("POST", "/api/v1/photos", files.form(files.file(data)), **headers)

    def send_until_there_is_room(data):
        """Come back after 503, as Retry-After says: on a busy machine a photo may wait too long for its turn."""
        return wait_until(lambda: (answer := send(data)).status != 503 and answer)

    return send_until_there_is_room


def test_no_file_ends_the_server_or_fails_another_request(web, sender):
    worker = web.worker
    costly = [CRASH, many_scans(2000), lossless_webp((6300, 6300))]
    sent = [INNOCENT if number % 4 == 0 else costly[number % 4 - 1] for number in range(24)]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(sender, sent))
    for number, answer in enumerate(answers):
        expected = {200, 201} if number % 4 in (0, 3) else {422}
        assert answer.status in expected, (number, answer.text)
    assert web.status("/healthz/live") == 200
    assert web.worker == worker


def test_no_mutation_is_an_error_of_ours(web, sender):
    worker = web.worker

    def send(mutation):
        name, data = mutation
        return name, sender(data)

    with ThreadPoolExecutor(4) as threads:
        for name, answer in threads.map(send, mutations(MUTATIONS, seed=11)):
            assert answer.status in REFUSED | {200, 201}, name
        assert sender(INNOCENT).status in (200, 201)
    assert web.worker == worker
