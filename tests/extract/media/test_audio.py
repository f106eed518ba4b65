"""Sound of clips: level, place in time, rates, length."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from media_cases import MakeClip
from numpy.typing import NDArray

from avfeat.errors import MediaError
from avfeat.extract.media import ClipReader, DecodeReport, Window
from avfeat.testing import AudioTrack

WHOLE = Window(0, 4, whole=True)


def heard(
    path: Path, rates: list[int], window: Window = WHOLE, block: float = 10.0
) -> tuple[dict[int, NDArray[np.float32]], DecodeReport]:
    with ClipReader(path) as reader:
        blocks = list(reader.audio(rates, window=window, block_seconds=block))
        report = reader.report
    sound = {rate: np.concatenate([part[rate] for part in blocks]) for rate in rates}
    for rate, samples in sound.items():
        assert samples.dtype == np.float32
        assert len(samples) == round(window.length * rate)
    return sound, report


def tone_level(samples: NDArray[np.float32], rate: int, hz: float) -> float:
    """Amplitude of a sine in a stretch of sound."""
    phase = np.exp(-2j * np.pi * hz * np.arange(len(samples)) / rate)
    return float(2 * np.abs(np.mean(samples * phase)))


def onset(samples: NDArray[np.float32], rate: int, level: float = 0.1) -> float:
    return float(np.argmax(np.abs(samples) > level)) / rate


@pytest.mark.parametrize("codec", ["aac", "mp3", "flac", "pcm_s16le"])
@pytest.mark.parametrize(
    ("gains", "level"), [((1,), 0.5), ((1, 1), 0.5), ((1, 0), 0.25), ((1, 1, 1, 1, 1, 1), 0.5)]
)
def test_channels_are_averaged(
    clip: MakeClip, codec: str, gains: tuple[float, ...], level: float
) -> None:
    if codec == "mp3" and len(gains) > 2:
        pytest.skip("MP3 has no surround sound")
    if codec == "aac" and len(gains) > 2:
        level *= 5 / 6  # the encoder band-limits the bass channel away
    if codec == "mp3":
        level *= 0.95  # LAME's own headroom
    track = AudioTrack(tones=[(0, 4, 1000, 0.5)], gains=gains, codec=codec)
    path = clip(f"level-{codec}-{''.join(map(str, gains))}.mkv", codec=None, audio=track)
    sound, report = heard(path, [16000, 44100, 48000])
    for rate, samples in sound.items():
        assert tone_level(samples[rate : 3 * rate], rate, 1000) == pytest.approx(level, rel=0.01)
    assert report.corrupt_frames == 0


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("start", [0.0, 1.4])
def test_tones_sound_when_and_as_they_should(clip: MakeClip, suffix: str, start: float) -> None:
    track = AudioTrack(tones=[(1.0, 1.5, 440, 0.5), (2.0, 3.0, 3000, 0.25)], gains=(1, 1))
    path = clip(f"tones-{start}.{suffix}", audio=track, start=start)
    sound, _ = heard(path, [16000])
    samples = sound[16000]
    late = 0.024 if suffix == "ts" or (start and suffix == "mp4") else 0.0
    # Codec priming: where the container cannot say that the encoder put silence in front, time
    # zero is the first sample of that.
    assert onset(samples, 16000) == pytest.approx(1.0 + late, abs=0.005)
    assert tone_level(samples[16800:23200], 16000, 440) == pytest.approx(0.5, rel=0.02)
    assert tone_level(samples[32800:47200], 16000, 3000) == pytest.approx(0.25, rel=0.02)
    assert np.abs(samples[:15900]).max() < 0.01
    assert tone_level(samples[32800:47200], 16000, 440) < 0.005


def test_resampling_equals_one_shot_soxr(shared: Path) -> None:
    path = shared / "media" / "BjCEufrlXm4.mp4"
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    mono = np.concatenate(frames, axis=1).astype(np.float64).mean(axis=0).astype(np.float32)
    window = Window(0, 10, whole=True)
    sound, report = heard(path, [16000, 44100, 48000], window, block=0.7)
    assert np.array_equal(sound[44100], mono[:441000])
    for rate in (16000, 48000):
        expected = soxr.resample(mono, 44100, rate, quality="HQ")[: 10 * rate]
        short = min(len(expected), 10 * rate)
        assert np.abs(sound[rate][:short] - expected[:short]).max() < 1e-6
    assert report.audio_short == pytest.approx(max(0.0, 10 - len(mono) / 44100), abs=1e-9)


@pytest.mark.parametrize("block", [0.25, 1.0, 3.3, 100.0])
def test_blocks_change_nothing(clip: MakeClip, block: float) -> None:
    path = clip("blocks.mp4", audio=AudioTrack(tones=[(0.5, 3.5, 700, 0.5)], gains=(1, 0.5)))
    whole, _ = heard(path, [16000, 22050])
    parts, _ = heard(path, [16000, 22050], block=block)
    for rate in whole:
        assert np.array_equal(whole[rate], parts[rate])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_cut_equals_that_part_of_the_whole(clip: MakeClip, suffix: str) -> None:
    tones = [(k, k + 0.7, 300 + 50 * k, 0.4) for k in range(20)]
    path = clip(f"long-sound.{suffix}", duration=20.0, audio=AudioTrack(tones=tones, gains=(1, 1)))
    whole, _ = heard(path, [16000, 44100], Window(0, 20, whole=True))
    cut, report = heard(path, [16000, 44100], Window(9.5, 14.5))
    for rate, samples in cut.items():
        if rate != 44100 and suffix != "mp4":
            continue  # shifted by a fraction of a sample
        expected = whole[rate][int(9.5 * rate) : int(14.5 * rate)]
        # Containers that count in 1/1000 or 1/90000 s place the seek point to half a tick.
        slack = 0 if suffix == "mp4" else rate // 1000 + 1
        errors = [
            np.abs(samples[50:-50] - np.roll(expected, shift)[50:-50]).max()
            for shift in range(-slack, slack + 1)
        ]
        assert min(errors) < (1e-5 if suffix == "mp4" else 1e-3)
    assert report.audio_short == 0


def test_a_long_file_is_not_decoded_from_its_start(
    clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avfeat.extract.media import audio

    path = clip("long-sound.mp4", duration=20.0)
    times: list[float] = []
    real = audio._decode

    def decode(packet: av.Packet, report: DecodeReport) -> list[av.AudioFrame]:
        times.append(float((packet.pts or 0) * packet.time_base))
        return real(packet, report)

    monkeypatch.setattr(audio, "_decode", decode)
    heard(path, [16000], Window(10, 12))
    assert 7.5 < min(times) <= 9
    assert max(times) < 12.5


def test_early_end_is_padded_and_told(clip: MakeClip) -> None:
    track = AudioTrack(tones=[(0, 4, 500, 0.5)], codec="pcm_s16le", duration=2.5)
    sound, report = heard(clip("early.mkv", audio=track), [16000, 44100])
    assert report.audio_short == pytest.approx(1.5, abs=1e-3)
    assert np.abs(sound[44100][110300:]).max() == 0
    assert np.abs(sound[16000][40100:]).max() == 0


def test_late_start_is_silence(clip: MakeClip) -> None:
    track = AudioTrack(tones=[(0, 4, 500, 0.5)], codec="flac", start=1.25)
    sound, report = heard(clip("late.mkv", audio=track), [16000, 44100])
    assert np.abs(sound[44100][: int(1.249 * 44100)]).max() == 0
    assert onset(sound[44100], 44100) == pytest.approx(1.25, abs=0.002)
    assert onset(sound[16000], 16000) == pytest.approx(1.25, abs=0.002)
    assert report.audio_short == pytest.approx(1.25, abs=1e-3)


def test_sound_past_the_window_is_cut(clip: MakeClip) -> None:
    track = AudioTrack(tones=[(0, 4, 500, 0.5)])
    sound, report = heard(clip("past.mp4", audio=track), [16000], Window(0, 3.3, whole=True))
    assert np.abs(sound[16000][-100:]).max() > 0.4
    assert report.audio_short == 0


def test_a_gap_is_filled_with_silence(clip: MakeClip, tmp_path: Path) -> None:
    track = AudioTrack(tones=[(0, 4, 500, 0.5)], codec="pcm_s16le")
    source, path = clip("gapless.mkv", audio=track, codec=None), tmp_path / "gap.mkv"
    with av.open(str(source)) as reading, av.open(str(path), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.audio[0])
        for packet in reading.demux(audio=0):
            if packet.pts is not None and not 1.0 <= packet.pts * packet.time_base < 2.0:
                packet.stream = stream
                writing.mux(packet)
    sound, report = heard(path, [44100])
    samples = sound[44100]
    quiet = np.flatnonzero(np.abs(samples).reshape(400, 441).max(axis=1) == 0)
    assert 96 <= len(quiet) <= 100
    assert 99 <= quiet[0] <= 104 and 197 <= quiet[-1] <= 201
    assert np.abs(samples[3 * 44100 :]).max() > 0.4
    assert report.audio_short == pytest.approx(1.0, abs=0.05)


def test_no_sound(clip: MakeClip) -> None:
    with ClipReader(clip("quiet.mp4", audio=None)) as reader:
        assert reader.info.audio is None
        with pytest.raises(MediaError) as caught:
            next(reader.audio([16000], window=WHOLE))
    assert caught.value.kind == "no_audio"


@pytest.mark.parametrize(("rates", "block"), [([], 1), ([0], 1), ([-5, 16000], 1), ([16000], 0)])
def test_senseless_requests_are_refused(clip: MakeClip, rates: list[int], block: float) -> None:
    with (
        ClipReader(clip("past.mp4")) as reader,
        pytest.raises(ValueError, match="must be positive"),
    ):
        next(reader.audio(rates, window=WHOLE, block_seconds=block))


def test_the_first_of_two_tracks_is_read(clip: MakeClip) -> None:
    tracks = [AudioTrack(tones=[(0, 4, hz, 0.5)]) for hz in (500, 2000)]
    path = clip("two.mp4", audio=tracks)
    with ClipReader(path) as reader:
        assert reader.info.audio_streams == 2
    sound, _ = heard(path, [16000])
    assert tone_level(sound[16000][16000:32000], 16000, 500) == pytest.approx(0.5, rel=0.02)
    assert tone_level(sound[16000][16000:32000], 16000, 2000) < 0.005


def test_sound_that_went_through_a_lower_rate_has_nothing_above_half_of_it(clip: MakeClip) -> None:
    """What a pipeline that keeps 16 kHz feeds a 48 kHz network."""
    track = AudioTrack(tones=[(0, 4, 3000, 0.3), (0, 4, 12000, 0.3)], codec="flac", rate=44100)
    path = clip("two-tones.mkv", codec=None, audio=track)
    with ClipReader(path) as reader:
        blocks = list(reader.audio([48000, 16000, (16000, 48000)], window=WHOLE))
    native, low, through = (
        np.concatenate([block[rate] for block in blocks]) for rate in (48000, 16000, (16000, 48000))
    )
    assert len(through) == len(native) == 3 * len(low)
    middle = slice(48000, 3 * 48000)
    assert tone_level(native[middle], 48000, 12000) == pytest.approx(0.3, rel=1e-3)
    assert tone_level(through[middle], 48000, 12000) < 1e-4
    assert tone_level(through[middle], 48000, 3000) == pytest.approx(0.3, rel=1e-3)
    once_more = soxr.resample(low, 16000, 48000, quality="HQ")
    np.testing.assert_allclose(through[middle], once_more[middle], atol=1e-5)
