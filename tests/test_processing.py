"Processing of real footage, and of footage that cannot be used"
import json
import subprocess
import sys
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rpa
from rpa.core import Failures, RpaError, read_manifest, sha256
from rpa import pose
from rpa.processing import (ProcessConfig, batch, find_runs, plan_windows, process, process_video, roi, select_runners,
                            slice_windows)
from rpa.video import probe, read_clip, read_frames, read_video, write_video

ROOT = Path(rpa.__file__).parents[1]
GAITLAB = ROOT/'../shared/data/run/gaitlab'
SPORTS2D = ROOT/'nbs/demo/real/sports2d_demo.mp4'
RPA = [sys.executable, '-c', 'import sys; from rpa.pipelines import main; sys.exit(main())']
needs_gaitlab = pytest.mark.skipif(not GAITLAB.is_dir(), reason='../shared/data/run/gaitlab is not here')
needs_sports2d = pytest.mark.skipif(not SPORTS2D.is_file(), reason='nbs/demo/real/sports2d_demo.mp4 is not here')


@pytest.fixture(scope='module')
def treadmill(): return find_runs(GAITLAB/'male_side.mp4', show=False)


@pytest.fixture(scope='module')
def park(): return find_runs(SPORTS2D, show=False)


@pytest.fixture(scope='module')
def ankles():
    "Reference ankles of another pose model, (frames, 2, 2) px"
    d = json.loads((GAITLAB/'male_side.pose.json').read_text())
    i = [d['keypoint_names'].index(f'{s}_ankle') for s in 'lr']
    return np.array(d['frames'])[:,i,:2]


@needs_gaitlab
def test_one_runner_is_found_and_kept(treadmill):
    assert len(treadmill.tracks)==1 and len(treadmill.kept)==1
    assert len(treadmill.kept[0])>=.98*treadmill.info.frames


@needs_gaitlab
def test_crops_hold_both_feet_and_do_not_shake(treadmill, ankles):
    track, cfg = treadmill.kept[0], ProcessConfig()
    r = roi(track, cfg)
    inside = (np.abs(ankles[track.frame]-r.centre[:,None])<r.side[:,None,None]/2).all((1, 2))
    step = np.linalg.norm(np.diff(r.centre, axis=0), axis=1)/r.side[1:]
    print(f'both ankles inside {inside.mean():.1%}, centre moves {np.median(step):.2%} of the side (median)')
    assert inside.mean()>=.95 and np.median(step)<.02
    at = ((ankles[track.frame].mean(1)[:,1]-r.centre[:,1])/r.side+.5).mean()
    assert abs(at-cfg.ankle_vertical_ratio)<.05


@needs_gaitlab
def test_contact_clips_show_one_foot_at_one_place(treadmill):
    windows, away = plan_windows(treadmill, ProcessConfig(align='contact'))
    assert len(windows)>=30 and {w.foot for w in windows}=={'L', 'R'}
    assert all(w.flip for w in windows) # he runs to the left
    true = pd.read_csv(GAITLAB/'male_side.contacts.csv')
    near = [np.abs(true[true.side==w.foot].ic_frame-w.frames[8]).min() for w in windows]
    assert np.mean(np.array(near)<=1)>=.9
    heights = treadmill.kept[0].height_px
    assert all(abs(w.side[0]/np.median(heights)-.42)<.05 and len(set(w.side))==1 for w in windows)


@needs_gaitlab
def test_lower_resolution_gives_the_same_answer(treadmill, tmp_path):
    small = tmp_path/'small.mp4'
    write_video(small, (f for _,f in read_frames(GAITLAB/'male_side.mp4', height=640, end_s=4)), 30)
    a, b = treadmill.motions[treadmill.kept[0].id], find_runs(small, show=False)
    b = b.motions[b.kept[0].id]
    assert abs(a.ankle_variance/b.ankle_variance-1)<.25 and abs(a.speed-b.speed)<.02


@needs_gaitlab
def test_imported_keypoints_take_the_place_of_the_pose_models(tmp_path):
    done = process_video(GAITLAB/'male_side.mp4', tmp_path, ProcessConfig(align='contact'), review=False,
                         keypoints=GAITLAB/'male_side.pose.json')
    assert len(done.clips)>=28 and not list((tmp_path/'.rpa').glob('people/*'))


@needs_sports2d
def test_the_man_who_stands_is_rejected_with_his_reason(park):
    at = {t.id:t.box[np.searchsorted(t.frame, 100)] for t in park.tracks if t.frame[0]<=100<=t.frame[-1]}
    man, woman = sorted(at, key=lambda k: at[k][3]) # he stands on a box, his feet are higher in the picture
    assert park.why[woman]=='' and park.why[man]
    print(park.why[man])


@needs_gaitlab
@needs_sports2d
@pytest.mark.parametrize('cfg', [ProcessConfig(), ProcessConfig(top_n_fastest=0), ProcessConfig(top_n_fastest=1)])
def test_who_runs_on_the_spot_need_not_be_fast(treadmill, park, cfg):
    "The treadmill runner among those in the park: kept beside faster people; the man who stands is not"
    man, woman, _ = park.tracks
    runner = replace(treadmill.motions[treadmill.kept[0].id], track=90)
    why = select_runners([runner, *park.motions.values(), replace(park.motions[woman.id], track=91)], cfg)
    assert runner.speed<.1 and why[90]=='' and 'the feet pass each other' in why[man.id]
    assert select_runners([runner], cfg)=={90:''}


@needs_sports2d
def test_clips_never_cross_a_gap(park):
    for track in park.kept:
        for w in slice_windows(track, ProcessConfig())[0]: assert (np.diff(w.frames)==1).all()


@needs_sports2d
def test_process_writes_what_it_says(park, tmp_path):
    src = tmp_path/'short.mp4'
    write_video(src, (f for _,f in read_frames(SPORTS2D, height=480, start_s=2.5, end_s=4.5)), 30)
    out = subprocess.run([*RPA, 'process', '--input', str(src), '--output-dir', str(tmp_path/'clips'), '--min_frames',
                          '10', '--track-video'], capture_output=True, text=True)
    assert out.returncode==0, out.stderr
    df = read_manifest(tmp_path/'clips')
    assert len(df) and df.file.str.fullmatch(r'short_ID_\d+_clip_\d{3}\.mp4').all() and (df.frames==16).all()
    for r in df.itertuples():
        clip, info = read_clip(tmp_path/'clips'/r.file), probe(tmp_path/'clips'/r.file)
        assert clip.shape==(16, 224, 224) and str(info.fps)=='30' and info.codec=='h264'
        assert sha256(tmp_path/'clips'/r.file)==r.sha256 and r.source_sha256==sha256(src)
    assert (tmp_path/'clips/review/short.png').exists() and (tmp_path/'clips/review/short.mp4').exists()
    assert (tmp_path/f'clips/short_ID_{df.track[0]}.mp4').exists()
    assert 'reason' in pd.read_csv(tmp_path/'clips/rejected.csv').columns


def grey(path, n, size=(240, 320)):
    write_video(path, np.full((n, *size, 3), 90, np.uint8), 30)
    return path


@pytest.mark.parametrize('content, says', [(None, 'no such video'), (b'', 'empty'), (b'not a film'*50, 'not a film')])
def test_files_that_are_no_video_say_so(tmp_path, content, says):
    src = tmp_path/'bad.mp4'
    if content is not None: src.write_bytes(content)
    with pytest.raises(RpaError, match=says): process_video(src, tmp_path/'out', show=False)


def test_truncated_video(tmp_path):
    src = grey(tmp_path/'whole.mp4', 60)
    cut = tmp_path/'cut.mp4'
    cut.write_bytes(src.read_bytes()[:len(src.read_bytes())//2])
    with pytest.raises(RpaError): process_video(cut, tmp_path/'out', show=False)


@pytest.mark.parametrize('n, size', [(1, (240, 320)), (40, (240, 320)), (3, (1, 1)), (2, (2160, 3840))])
def test_nobody_in_the_picture(tmp_path, n, size):
    src = grey(tmp_path/'empty.mp4', n, size)
    with pytest.raises(RpaError, match=f'nobody found in {n} frames'): process_video(src, tmp_path/'out', show=False)
    assert 'nobody found' in (tmp_path/'out/failed.csv').read_text() and (tmp_path/'out/review/empty.png').exists()
    bad = Failures()
    assert process_video(src, tmp_path/'out', show=False, failures=bad).failed and len(bad)==1


@pytest.mark.parametrize('fps, shown', [('60000/1001', '30000/1001'), (50, '25'), (48, '24'), (30, '30'), (25, '25'), (90, '30'),
                                        (120, '30')])
def test_the_overlay_has_at_most_30_hz(tmp_path, fps, shown):
    write_video(tmp_path/'a.mp4', np.full((24, 96, 128, 3), 90, np.uint8), fps)
    process_video(tmp_path/'a.mp4', tmp_path/'out', show=False, failures=Failures())
    assert str(probe(tmp_path/'out/review/a.mp4').fps)==shown


def test_other_networks_and_newer_code_find_the_people_anew(tmp_path, monkeypatch):
    src, looked = grey(tmp_path/'a.mp4', 4), []
    monkeypatch.setattr('rpa.processing.track_people', lambda frames, *a, **kw: looked.append(len(list(frames))) or [])
    def again(): return process_video(src, tmp_path/'out', show=False, failures=Failures())
    assert not again().skipped and again().skipped and len(looked)==1
    process_video(src, tmp_path/'out', ProcessConfig(stride=8), show=False, failures=Failures())
    assert len(looked)==1 # other settings, same people
    monkeypatch.setattr(pose, 'POSE_VERSION', pose.POSE_VERSION+1)
    assert not again().skipped and again().skipped and len(looked)==2
    monkeypatch.setitem(pose.WEIGHTS, 'pose_landmark_full.tflite', '0'*64)
    assert not again().skipped and len(looked)==3
    assert len(list((tmp_path/'out/.rpa/people').iterdir()))==1 # what nobody will read any more is gone
    assert again().tracks==[]


@needs_gaitlab
def test_feet_outside_the_picture(tmp_path):
    frames,_ = read_video(GAITLAB/'male_side.mp4', height=640, end_s=1)
    write_video(tmp_path/'waist.mp4', frames[:,:450], 30)
    with pytest.raises(RpaError, match='feet in view'): process_video(tmp_path/'waist.mp4', tmp_path/'out', show=False)


@needs_gaitlab
def test_too_short(tmp_path):
    write_video(tmp_path/'short.mp4', read_video(GAITLAB/'male_side.mp4', height=640, end_s=.45)[0], 30)
    with pytest.raises(RpaError, match='min_frames'): process_video(tmp_path/'short.mp4', tmp_path/'out', show=False)


def test_a_folder_without_laps(tmp_path):
    with pytest.raises(RpaError, match='must be a folder'): batch(str(tmp_path/'none'), str(tmp_path/'out'))
    with pytest.raises(RpaError, match='none found'): batch(str(tmp_path), str(tmp_path/'out'))


@pytest.fixture
def tree(tmp_path):
    "Two laps that nobody runs, quick to process"
    for runner,gray in (('04HN', 60), ('15VR', 160)):
        lap = tmp_path/f'in/{runner}_RUN1_CAM1/clips/lap_006_000.mp4'
        lap.parent.mkdir(parents=True)
        write_video(lap, np.full((20, 64, 64, 3), gray, np.uint8), 30)
    return tmp_path/'in'


def test_a_lap_that_cannot_be_read_spares_the_others(tree, tmp_path):
    (tree/'04HN_RUN1_CAM1/clips/lap_007_001.mp4').symlink_to(tmp_path/'gone.mp4')
    done = batch(str(tree), str(tmp_path/'out'), workers=1, no_review=True)
    bad = {Path(f).name: (stage, why) for f,stage,why in done.failures if 'lap_007' in f}
    assert bad['lap_007_001.mp4'][0]=='read' and 'cannot be read' in bad['lap_007_001.mp4'][1]
    assert len(done.done)==2 and (tmp_path/'out/failed.csv').is_file()


def test_wrong_keypoints_remove_no_lap(tree, tmp_path):
    out, parts = tmp_path/'out', tmp_path/'out/.rpa/parts'
    batch(str(tree), str(out), workers=1, no_review=True)
    before = {p.name:p.read_bytes() for p in parts.iterdir()}
    again = batch(str(tree), str(out), workers=1, no_review=True, keypoints=str(tmp_path/'nowhere'))
    assert len(again.failures)>=2 and {p.name:p.read_bytes() for p in parts.iterdir()}==before


def test_another_video_of_the_same_name_is_refused(tree, tmp_path):
    a, b = sorted(tree.glob('*/clips/*.mp4'))
    process_video(a, tmp_path/'out', failures=Failures(), review=False, show=False)
    bad = Failures()
    process_video(b, tmp_path/'out', failures=bad, review=False, show=False)
    assert 'holds clips of another video with that name' in list(bad)[0][2]
    write_video(a, np.full((24, 64, 64, 3), 90, np.uint8), 30) # the same video made anew is no other
    process_video(a, tmp_path/'out', failures=(bad := Failures()), review=False, show=False)
    assert 'another video' not in list(bad)[0][2]


def test_keypoints_that_outlast_the_video(tmp_path):
    film = write_video(tmp_path/'film.mp4', np.full((10, 64, 64, 3), 90, np.uint8), 30)
    t = pose.Track(1, np.arange(30), np.arange(30)/30, np.full((30, 33, 2), 20.), np.ones((30, 33)), np.tile([5., 5, 30, 60], (30, 1)),
                   np.zeros(30, bool), probe(film).fps, 64, 64)
    pose.save_tracks(tmp_path/'people.npz', [t])
    with pytest.raises(RpaError, match='go on to frame 29, film.mp4 has 10 frames'):
        find_runs(film, keypoints=tmp_path/'people.npz', show=False)


def test_the_bundle_will_know_that_keypoints_were_imported(tmp_path):
    "`settings.json` is what `train` puts into the bundle"
    film = write_video(tmp_path/'film.mp4', np.full((30, 64, 64, 3), 90, np.uint8), 30)
    t = pose.Track(1, np.arange(30), np.arange(30)/30, np.full((30, 33, 2), 20.), np.ones((30, 33)), np.tile([5., 5, 30, 60], (30, 1)),
                   np.zeros(30, bool), probe(film).fps, 64, 64)
    pose.save_tracks(tmp_path/'people.npz', [t])
    for keypoints,name in ((tmp_path/'people.npz', 'imported'), ('', 'own')):
        process_video(film, tmp_path/name, keypoints=keypoints, failures=Failures(), review=False, show=False)
        (key, known), = json.loads((tmp_path/name/'settings.json').read_text()).items()
        assert known['pose']==name and key==ProcessConfig.from_dict(known).hash


def test_process_and_batch_have_the_flags_and_defaults_of_the_settings():
    "Written out three times, so that each has its own help: they must not drift apart"
    for f in fields(ProcessConfig):
        for verb in (process, batch):
            if f.name!='pose': assert signature(verb).parameters[f.name].default==f.default, (verb, f.name)
