"""Numbers in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Write a number of things.

    >>> counted(1, "clip"), counted(0, "clip"), counted(12, "clip")
    ('1 clip', '0 clips', '12 clips')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a time in the unit that people would.

    >>> duration(7.2), duration(100), duration(400), duration(9000)
    ('7 s', '100 s', '7 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 120 * 60 else f"{seconds / 3600:.1f} h"


def pace(clips_per_second: float) -> str:
    """Write a speed: below one clip in ten seconds as the time that a clip takes.

    >>> pace(2.5), pace(0.025)
    ('2.50 clips/s', '40 s/clip')
    """
    if 0 < clips_per_second < 0.1:
        return f"{duration(1 / clips_per_second)}/clip"
    return f"{clips_per_second:.2f} clips/s"


def without_name(message: str, clip_id: str) -> str:
    """Cut the file's name off a message that stands behind the clip's id, where both are the same.

    >>> without_name("cut.mp4: the file is cut off", "talks/cut.mp4")
    'the file is cut off'
    """
    return message.removeprefix(f"{clip_id.rpartition('/')[2]}: ")
