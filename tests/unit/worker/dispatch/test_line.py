from worker.dispatch.line import Line


def taken(line: Line) -> list[str]:
    """All that wait, in their order."""
    found = []
    while (key := line.take(failed=True)) is not None:
        found.append(key)
    return found


def a_line(*keys: str) -> Line:
    """A line of instances that have not been tried."""
    line = Line()
    for key in keys:
        line.add(key, 0)
    return line


def test_instances_come_in_the_order_in_which_they_were_seen() -> None:
    """Nobody waits for ever."""
    assert taken(a_line("c", "a", "b")) == ["c", "a", "b"]


def test_instance_that_just_got_an_upload_is_next_however_many_wait() -> None:
    """Of a thousand that may hang, the one that somebody waits for now is found first; every other place is the others'."""
    line = a_line("a", "b", "c")
    line.add("x", 0, fresh=True)
    line.add("y", 0, fresh=True)
    assert taken(line) == ["y", "a", "x", "b", "c"]


def test_instance_that_waits_already_comes_forward_with_a_new_upload() -> None:
    """It is in the line once."""
    line = a_line("a", "b", "c")
    line.add("c", 0, fresh=True)
    line.add("c", 0)
    assert taken(line) == ["c", "a", "b"]


def test_instance_with_an_older_upload_is_tried_while_newer_ones_keep_coming() -> None:
    """Whoever came first is tried in the end."""
    line = a_line("a")
    tried = []
    for number in range(4):
        line.add(f"new-{number}", 0, fresh=True)
        tried.append(line.take(failed=True))
    assert "a" in tried


def test_instances_that_failed_least_often_come_before_those_that_failed_more() -> None:
    """One that is only slow never waits for those that have hung for hours."""
    line = Line()
    for key, failures in (("hung", 9), ("slow", 1), ("hung", 9), ("new", 0), ("down", 2)):
        line.add(key, failures)
    assert len(line) == 4
    assert taken(line) == ["new", "slow", "down", "hung"]
    assert len(line) == 0


def test_instances_that_failed_are_left_in_the_line_while_there_is_no_room_for_them() -> None:
    """Their threads have a limit of their own."""
    line = Line()
    line.add("down", 1)
    line.add("new", 0)
    assert [line.take(failed=False), line.take(failed=False)] == ["new", None]
    assert taken(line) == ["down"]
