"""What is logged of an episode, read back from the file that Rerun wrote."""

import numpy as np
import pytest

rerun = pytest.importorskip("rerun", reason="needs the `view` extra")

from robot_rl.data.rows import FrameRows  # noqa: E402
from robot_rl.data.schema import StoreSchema  # noqa: E402
from robot_rl.values import Recording, Stream  # noqa: E402
from robot_rl.view.episode import log_episode  # noqa: E402
from robot_rl.view.layout import blueprint  # noqa: E402
from robot_rl.view.prediction import Prediction  # noqa: E402
from robot_rl.view.prediction_log import log_prediction  # noqa: E402
from robot_rl.view.show import new_log, save  # noqa: E402
from robot_rl.view.timelines import try_align  # noqa: E402
from tests.view.view_data import EXTRA, MS, SPEC, START, N, commands, recording, store  # noqa: E402

SCHEMA = StoreSchema(spec=SPEC, extra=EXTRA)


def read_back(path):
    """Return {entity: {column: list of values}} of the rows in time, and the same of what is static; times in ns."""
    from rerun.chunk import RrdReader

    rows, static = {}, {}
    for chunk in RrdReader(path).stream():
        columns = (static if chunk.is_static else rows).setdefault(chunk.entity_path, {})
        batch = chunk.to_record_batch()
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            plain = values.cast("int64") if str(values.type).startswith(("timestamp", "duration")) else values
            columns.setdefault(name, []).extend(plain.to_pylist())
    return rows, static


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    made = store(folder / "store")
    log = new_log("ep0")
    save(log, folder / "ep0.rrd")
    source = made.read("ep0")
    scene = log_episode(log, "ep0", source, made.schema)
    log.send_blueprint(blueprint([scene]))
    log.disconnect()
    return source, scene, *read_back(folder / "ep0.rrd")


def test_pictures_are_the_stored_bytes_and_nothing_was_decoded(logged):
    source, scene, rows, _ = logged
    frames = source.streams["front"].data
    assert isinstance(frames, FrameRows)
    found = rows["/cameras/front"]
    assert [bytes(blob[0]) for blob in found["EncodedImage:blob"]] == [frames.encoded(i) for i in range(len(frames))]
    assert set(map(tuple, found["EncodedImage:media_type"])) == {("image/jpeg",)}
    assert "/cameras/front" in scene.cameras


def test_curves_have_every_sample_at_its_place_on_all_three_timelines(logged):
    source, _, rows, static = logged
    stream, found = source.streams["q"], rows["/obs/q/1"]
    np.testing.assert_array_equal(np.ravel(found["Scalars:scalars"]), np.asarray(stream.data[:], np.float64)[:, 1])
    stamps = np.array(found["stamp"])
    np.testing.assert_array_equal(stamps, stream.stamp_ns)
    np.testing.assert_array_equal(found["time"], stamps - START)
    first_tick = START + 5 * MS  # when the camera's first picture exists
    np.testing.assert_array_equal(found["step"], np.minimum((stamps - first_tick) // (50 * MS), N - 2))
    assert static["/obs/q/1"]["SeriesLines:names"] == [["1 [rad]"]]


def test_commanded_and_executed_actions_and_the_reward_are_there(logged):
    _, scene, rows, static = logged
    np.testing.assert_allclose(np.ravel(rows["/action/0"]["Scalars:scalars"]), commands()[:, 0])
    np.testing.assert_allclose(
        np.ravel(rows["/action_executed/0"]["Scalars:scalars"]), commands()[:, 0] * np.float32(0.9)
    )
    assert static["/action/0"]["SeriesLines:names"] == [["commanded"]]
    assert np.sum(rows["/reward"]["Scalars:scalars"]) == 1.0
    assert {k: curve.path for k, curve in scene.state.items()} == {0: "/obs/q/0", 1: "/obs/q/1"}


def test_bands_tell_who_drove_and_where_the_camera_was_gone(logged):
    _, _, rows, _ = logged
    driver = rows["/bands/driver"]
    assert [state[0] for state in driver["StateChange:state"]] == ["policy", "human", ""]
    assert driver["step"][1] == 29  # the tick before, since ticks begin with the first picture
    gap = rows["/bands/gap/front"]
    assert [state[0] for state in gap["StateChange:state"]] == ["gap", ""]
    assert gap["stamp"] == [START + 5 * MS + 50 * MS * 19, START + 5 * MS + 50 * MS * 30]


def test_events_say_it_in_words_and_in_order(logged):
    _, _, rows, _ = logged
    texts = [text[0] for text in rows["/events"]["TextLog:text"]]
    assert texts == ["policy drives", "front: gap of 0.550 s", "human takes over", "outcome: success (terminated)"]
    assert rows["/events"]["TextLog:level"][1] == ["WARN"]


def test_clouds_and_depth_are_drawn_and_what_is_neither_is_named(logged):
    _, scene, rows, static = logged
    assert len(rows["/clouds/cloud"]["Points3D:positions"][2]) == 16
    assert rows["/clouds/cloud"]["Points3D:positions"][1][0] == [48.0, 49.0, 50.0]
    depth = rows["/cameras/depth"]
    assert np.frombuffer(bytes(depth["DepthImage:buffer"][0][0]), np.uint16).tolist() == [500] * 600
    assert scene.undrawn == ["latent"]
    about = static["/about"]["TextDocument:text"][0][0]
    assert "neither picture nor cloud: latent" in about
    assert "| driven by | policy 50 %, human 50 % |" in about


def test_a_command_that_nothing_is_seen_to_follow_is_drawn_with_its_namesake(tmp_path):
    whole = recording()
    still = {**whole.streams, "action": Stream(whole.streams["action"].stamp_ns, np.full((N, 2), 9.0, np.float32))}
    features = {"a": {"names": ["hip", "knee"]}, "s": {"names": ["knee", "ankle"]}}
    imported = {"features": features, "streams": {"a": "action", "s": "q"}}
    meta = recording(meta={"extra": {"imported": imported}}).meta
    log = new_log("e")
    save(log, tmp_path / "e.rrd")
    scene = log_episode(log, "e", Recording(still, meta), SCHEMA)
    log.disconnect()
    assert {k: curve.path for k, curve in scene.state.items()} == {1: "/obs/q/knee"}
    assert "/action/hip" in read_back(tmp_path / "e.rrd")[0]


def test_the_recorders_verdict_is_among_the_events_and_its_count_of_gaps_stands(tmp_path):
    verdict = {"level": "warn", "reasons": ["jitter 9 ms"], "gaps": 0}
    quality = {"level": "warn", "streams": {"front": verdict}}
    log = new_log("e")
    save(log, tmp_path / "e.rrd")
    log_episode(log, "e", recording(meta={"extra": {"quality": quality}}), SCHEMA)
    log.disconnect()
    rows, _ = read_back(tmp_path / "e.rrd")
    assert ["recorder: front: jitter 9 ms"] in rows["/events"]["TextLog:text"]
    assert "/bands/gap/front" not in rows


@pytest.mark.parametrize("quality", [0.5, {"streams": 1}, {"streams": {"front": 1}}, {"streams": {"front": {}}}])
def test_a_quality_that_no_recorder_noted_is_not_told(tmp_path, quality):
    log = new_log("e")
    save(log, tmp_path / "e.rrd")
    log_episode(log, "e", recording(meta={"extra": {"quality": quality}}), SCHEMA)
    log.disconnect()
    rows, static = read_back(tmp_path / "e.rrd")
    assert not any("recorder" in text for texts in rows["/events"]["TextLog:text"] for text in texts)
    assert "recorder" not in str(static["/about"])


def test_a_recording_that_cannot_be_aligned_is_shown_with_the_reason(tmp_path):
    whole = recording()
    late = whole.streams["front"]
    streams = {**whole.streams, "front": Stream(late.stamp_ns + 3_600_000 * MS, late.data)}
    log = new_log("e")
    save(log, tmp_path / "e.rrd")
    scene = log_episode(log, "e", Recording(streams, whole.meta), SCHEMA)
    log.disconnect()
    rows, _ = read_back(tmp_path / "e.rrd")
    assert scene.state == {}
    assert any("the streams do not overlap" in text[0] for text in rows["/events"]["TextLog:text"])
    assert len(rows["/action/0"]["Scalars:scalars"]) == N


def test_two_episodes_start_together_whenever_they_were_recorded(tmp_path):
    made = store(tmp_path / "store")
    log = new_log("both")
    save(log, tmp_path / "both.rrd")
    scenes = [log_episode(log, id, made.read(id), made.schema, root=root) for id, root in (("ep0", "A"), ("ep1", "B"))]
    log.send_blueprint(blueprint(scenes))
    log.disconnect()
    rows, _ = read_back(tmp_path / "both.rrd")
    first, second = rows["/A/action/0"], rows["/B/action/0"]
    assert first["time"] == second["time"]
    assert first["stamp"] != second["stamp"]
    np.testing.assert_allclose(np.ravel(second["Scalars:scalars"]), commands(0.4)[:, 0])


def test_overlapping_chunks_lie_in_lanes_and_each_ends_in_a_break(tmp_path):
    from robot_rl.values import ActionChunk

    source = recording()
    episode, _ = try_align(source, SPEC, "e")
    assert episode is not None
    step = np.array([0, 4, 8, 12])
    chunks = tuple(ActionChunk(int(episode.stamp_ns[n]), 50 * MS, np.full((6, 2), n, np.float32)) for n in step)
    log = new_log("e")
    save(log, tmp_path / "e.rrd")
    scene = log_episode(log, "e", source, SCHEMA)
    error = np.arange(8.0).reshape(4, 2)
    log_prediction(log, scene, source, episode, Prediction(step=step, chunks=chunks, error=error), name="a formula")
    log.send_blueprint(blueprint([scene]))
    log.disconnect()
    rows, static = read_back(tmp_path / "e.rrd")
    assert scene.predicted[0] == ["/predicted/0/0", "/predicted/0/1"]
    low, high = scene.shown[0]
    assert low < episode.action[:, 0].min()
    assert 12.0 < high < 14.0
    lane = rows["/predicted/0/1"]["Scalars:scalars"]
    assert lane == [[4.0]] * 6 + [[]] + [[12.0]] * 6 + [[]]
    assert np.ravel(rows["/prediction_error/1"]["Scalars:scalars"]).tolist() == [1.0, 3.0, 5.0, 7.0]
    assert rows["/prediction_error/1"]["step"] == step.tolist()
    assert "| 0 | 3 | rad |" in static["/prediction"]["TextDocument:text"][0][0]
