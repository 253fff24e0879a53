"""An RTSP camera on a port of its own, run by the system's Python (needs python3-gi and GStreamer's RTSP server).

Prints the port. `/cam` sends 25 pictures a second; with the argument `secret` it wants the user `operator` with the
password `s3cret`; `port=N` takes that port, `size=WxH` sends pictures of another size, `codec=vp8` in another codec.
"""

import sys

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

Gst.init(None)
given = dict(argument.split("=") for argument in sys.argv[1:] if "=" in argument)
width, height = given.get("size", "160x120").split("x")
CODECS = {
    "jpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
    "vp8": "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=10 ! rtpvp8pay name=pay0 pt=96",
}
LAUNCH = (
    f"( videotestsrc is-live=true ! video/x-raw,format=I420,width={width},height={height},framerate=25/1 "
    f"! {CODECS[given.get('codec', 'jpeg')]} )"
)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(given.get("port", "0"))

factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(LAUNCH)
factory.set_shared(True)
if "secret" in sys.argv:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("operator", "s3cret"), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
sys.stdout.write(f"{server.get_bound_port()}\n")
sys.stdout.flush()
GLib.MainLoop().run()
