from stefna.tests.waiting import wait_until

LOOKS = [
    "express_enhance",
    "noir_classic",
    "vivid_pop",
    "duotone",
    "oil_painting",
    "comic_ink",
    "pop_art",
    "watercolor",
]


def test_killed_process_loses_no_run(install, tmp_path):
    server = install(tmp_path, DAILY_RUN_LIMIT="0")
    server.start()
    alma = server.call("member")["email"]
    for look in LOOKS:
        server.call("run", email=alma, state="queued", look=look)
    # Wait until some are running; then the process dies without a word.
    wait_until(lambda: "running" in statuses(server))
    server.kill()
    assert {"running", "queued"} & set(statuses(server))
    server.start()
    wait_until(lambda: statuses(server) == ["succeeded"] * 8, describe=lambda error: server.call("ended"))
    assert [told for _, _, told in server.call("ended")] == [1] * 8
    assert len(set(server.call("results"))) == 8


def statuses(server):
    return [status for status, _, _ in server.call("ended")]
