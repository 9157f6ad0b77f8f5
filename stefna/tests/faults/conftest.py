import pytest

from stefna.tests.faults.web import Web


@pytest.fixture(scope="session")
def web(install, tmp_path_factory):
    made = Web(install, tmp_path_factory.mktemp("web"))
    yield made
    made.end()
