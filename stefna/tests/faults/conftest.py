import pytest

from stefna.tests.faults.web import Web


@pytest.fixture
def web(server):
    made = []

    def start(**environment):
        made.append(Web(server, DEBUG="1", **environment))
        return made[-1]

    yield start
    for one in made:
        one.end()
