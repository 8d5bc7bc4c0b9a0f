"""A worker that ends badly in a real job ends the whole job at once, with its code and its last words."""
import pytest


@pytest.mark.parametrize("way, code, words", [
    (("raise",), 1, "RuntimeError: a wrong turn"), (("raise", "bare"), 1, "RuntimeError: a wrong turn"),
    (("user-error",), 2, "error: a wrong flag"), (("exit",), 3, "exited with code 3"),
    (("exit", "bare"), 3, "exited with code 3"), (("kill",), 137, "SIGKILL")])
def test_the_failure_ends_the_job(job, way, code, words):
    outcome = job(2, 1, "fail.py", *way, check=False, timeout=60)
    assert outcome.code == code, outcome.output
    assert words in outcome.output
    assert "worker 1" in outcome.output


def test_a_hang_ends_by_the_stall_deadline(job):
    outcome = job(2, 1, "fail.py", "hang", launch=("--stall-timeout", "4"), check=False, timeout=60)
    assert outcome.code == 124, outcome.output


def test_a_pickled_optimizer_is_refused(job):
    outcome = job(1, 1, "stock_optimizer.py", check=False, timeout=60)
    assert outcome.code != 0
    assert "refused a command: not JSON" in outcome.output and "[worker 0] value" not in outcome.output


def test_all_sockets_listen_on_loopback(job):
    outcome = job(2, 2, "sockets.py")
    listening = outcome.reports[0]["listening"]
    assert len(listening) >= 5  # scheduler, servers, workers
    assert set(listening) == {"0100007F"}, listening


def test_float64_parameters_are_refused_in_a_job(job):
    """MXNet's servers add in float32 at best; nobody waits for anybody after the refusal."""
    outcome = job(2, 1, "float64.py", check=False, timeout=60)
    assert outcome.code == 2, outcome.output
    assert "parameter '0.weight' is float64; MXNet's servers add in float32 at best" in outcome.output
