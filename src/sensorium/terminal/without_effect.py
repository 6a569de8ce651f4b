"""Options that are given where they have no effect: they are named, never silently eaten."""

from __future__ import annotations

import click

from sensorium.terminal.foreign import note
from sensorium.terminal.options import run_options, serve_options

_OF_MEDIA = {  # of the server, whatever models it has: what `media_limits` reads
    *("image_fetch_timeout", "video_fetch_timeout", "audio_fetch_timeout", "max_image_bytes", "max_image_pixels"),
    *("max_video_bytes", "max_video_frames", "max_frame_pixels", "max_video_seconds", "max_audio_bytes"),
    *("max_audio_seconds", "allow_private_media", "allowed_local_media_path"),
}


def note_options_of_models(why: str, *, run_only: bool = False) -> None:
    """Remember that options of `run_options`, and of `serve_options` but for the limits of media, have no effect."""

    def command() -> None: ...

    run_options(command)
    if not run_only:
        serve_options(command)
    names_of = {param.name for param in command.__click_params__}  # type: ignore[attr-defined]
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in names_of - _OF_MEDIA and source is click.core.ParameterSource.COMMANDLINE:
            note(param.opts[0], why)
