"""Checks `eddy serve` with the client of Triton, and under load: equal results, 200 requests at once, slow clients, huge bodies,
and SIGTERM in the middle of it.

Run it as `python3 tests/serve.py target/release/eddy`. It installs tritonclient by pip into a temporary virtual environment, and
says that it skips where pip cannot bring it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

PACKAGES = ["tritonclient[http]==2.73.0", "numpy", "pillow"]
IMAGE = Path(__file__).parent / "data" / "noisy-chelsea.png"
REQUESTS = 200


def install(folder):
    """Runs this script again where the packages are."""
    venv.create(folder, with_pip=True)
    python = Path(folder) / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    if subprocess.run(pip, timeout=300).returncode:
        print("SKIPPED: pip does not bring tritonclient")
        return 0
    return subprocess.run([python, __file__, "--installed", *sys.argv[1:]]).returncode


class Server:
    """A running server."""

    def __init__(self, binary, *arguments):
        command = [binary, "serve", "-l", "127.0.0.1:0", "--log", "json", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = []
        self.address = re.search(r"http://(\S+)", self.line("listens at")).group(1)
        self.line("ready:")
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def line(self, beginning):
        line = self.process.stderr.readline()
        assert line.startswith(beginning), line
        return line

    def ask(self, method, path, body=None, headers=None):
        connection = HTTPConnection(self.address, timeout=120)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())

    def connect(self):
        host, port = self.address.split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        return connection

    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) << 10

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.process.returncode


def denoised(binary, numpy, image):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clean.png"
        subprocess.run([binary, "denoise", IMAGE, "-o", path, "-q"], check=True)
        return path.read_bytes(), numpy.asarray(image.open(path).convert("RGB"))


def client(server, numpy, image, expected):
    """The protocol as Triton's client speaks it."""
    import tritonclient.http as triton

    client = triton.InferenceServerClient(server.address, concurrency=4)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("camera") and client.is_model_ready("camera", "1")
    assert client.get_server_metadata()["name"] == "eddy"
    assert client.get_model_metadata("upscale-x2")["inputs"][0]["datatype"] == "UINT8"
    assert {it["name"]: it["state"] for it in client.get_model_repository_index()} == {
        "denoise-fast": "READY", "camera": "READY", "upscale-x2": "READY",
    }
    pixels = numpy.asarray(image.open(IMAGE).convert("RGB"))
    for sends_binary in (True, False):
        for gets_binary in (True, False):
            tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
            tensor.set_data_from_numpy(pixels, binary_data=sends_binary)
            output = triton.InferRequestedOutput("image", binary_data=gets_binary)
            result = client.infer("denoise-fast", [tensor], outputs=[output], request_id="7")
            assert (result.as_numpy("image") == expected).all(), (sends_binary, gets_binary)
            assert result.get_response()["id"] == "7"
    floats = numpy.stack([pixels[:64, :96], pixels[64:128, :96]]).astype(numpy.float32) / 255
    tensor = triton.InferInput("image", list(floats.shape), "FP32")
    tensor.set_data_from_numpy(floats)
    result = client.infer("upscale-x2", [tensor], parameters={"steps": 2, "seed": 3})
    assert result.as_numpy("image").shape == (2, 128, 192, 3)
    jobs = [client.async_infer("upscale-x2", [tensor]) for _ in range(4)]
    assert all(job.get_result().as_numpy("image").dtype == numpy.float32 for job in jobs)
    try:
        client.infer("denoise-fast", [tensor], parameters={"sigma": "loud"})
        raise AssertionError("a wrong sigma was taken")
    except triton.InferenceServerException as error:
        assert "[400]" in str(error) and "expected auto" in str(error), error


def crowd(binary, body, expected):
    """Many requests at once: those that find a place have equal results, and the others are told when to come back."""
    for queue, refuses in ((REQUESTS, False), (16, True)):
        server = Server(binary, "-m", "denoise-fast", "--queue", str(queue))
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda _: server.ask("PUT", "/v1/denoise", body), range(REQUESTS)))
        counts = {code: sum(status == code for status, _, _ in answers) for code in (200, 429)}
        assert sum(counts.values()) == REQUESTS, {status for status, _, _ in answers}
        assert (counts[429] > 0) == refuses and counts[200] > queue / 2, counts
        assert all(found == expected for status, found, _ in answers if status == 200)
        assert all(int(head["Retry-After"]) > 0 for status, _, head in answers if status == 429)
        server.stop()
        print(f"queue of {queue}: {counts}")


def strangers(binary, body):
    """Clients that misbehave cost others nothing."""
    server = Server(binary, "-m", "denoise-fast", "--max-body", "2M")
    assert server.ask("PUT", "/v1/denoise", body)[0] == 200
    before = server.memory()
    slow = [server.connect() for _ in range(300)]
    for i, connection in enumerate(slow):
        head = b"PUT /v1/denoise HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head if i % 2 else head + b"Content-Length: 1000000\r\n\r\n\x89PNG")
    huge = server.connect()
    huge.sendall(b"PUT /v1/denoise HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
    assert huge.recv(12) == b"HTTP/1.1 413"
    # A chunked body of 200 MiB: it is refused at 2 MiB, and the answer arrives.
    endless = server.connect()
    endless.sendall(b"PUT /v1/denoise HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    try:
        for _ in range(200):
            endless.sendall(chunk)
    except OSError:
        pass
    # A reader that reads nothing, and one that leaves at once.
    for leaves in (False, True):
        connection = server.connect()
        head = f"PUT /v1/denoise?format=tiff HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        if leaves:
            connection.close()
        else:
            slow.append(connection)
    begun = time.monotonic()
    assert server.ask("PUT", "/v1/denoise", body)[0] == 200
    assert time.monotonic() - begun < 20, "strangers keep others waiting"
    more = server.memory() - before
    assert more < 96 << 20, f"{more >> 20} MiB more than before"
    for connection in slow:
        connection.close()
    server.stop()
    print(f"strangers: {more >> 20} MiB more")


def stopped_under_load(binary, body, expected):
    """What was taken is finished, and what comes later is refused."""
    server = Server(binary, "-m", "denoise-fast", "--queue", "64")
    with ThreadPoolExecutor(60) as pool:
        def ask(_, path="/v1/denoise"):
            try:
                return server.ask("PUT", path, body)
            except OSError:
                return 0, b"", {}

        # It keeps the server busy until the late requests have come.
        long = pool.submit(ask, 0, "/v1/denoise?steps=300")
        jobs = [pool.submit(ask, i) for i in range(30)]
        while b"requests_waiting{model=\"denoise-fast\"} 2" not in server.ask("GET", "/metrics")[1]:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while not any(line.startswith("stopping") for line in server.said):
            time.sleep(0.01)
        late = [pool.submit(ask, i) for i in range(10)]
        taken = [job.result() for job in jobs]
        refused = [job.result()[0] for job in late]
        assert long.result()[0] == 200
    assert server.process.wait(60) == 0
    codes = [status for status, _, _ in taken]
    assert codes.count(200) >= 2 and set(codes) <= {200, 503}, codes
    assert all(found == expected for status, found, _ in taken if status == 200)
    assert set(refused) <= {503, 0} and refused.count(503), refused
    time.sleep(0.1)
    records = [json.loads(line) for line in server.said if line.startswith("{")]
    assert sum(record["status"] == 200 and record["path"] == "/v1/denoise" for record in records) == codes.count(200) + 1
    print(f"stopped: {codes.count(200)} finished, {codes.count(503)} and {len(refused)} refused")


def main():
    arguments = [it for it in sys.argv[1:] if it != "--installed"]
    binary = os.path.abspath(arguments[0])
    if "--installed" not in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(install(folder))
    import numpy
    from PIL import Image

    file, pixels = denoised(binary, numpy, Image)
    server = Server(binary)
    client(server, numpy, Image, pixels)
    server.stop()
    # A small part, so that many take little time.
    from io import BytesIO

    part = BytesIO()
    Image.open(IMAGE).crop((0, 0, 96, 64)).save(part, "png")
    body = part.getvalue()
    server = Server(binary, "-m", "denoise-fast", "-m", "camera")
    assert server.ask("PUT", "/v1/denoise", IMAGE.read_bytes())[1] == file
    expected = server.ask("PUT", "/v1/denoise?model=denoise-fast", body)[1]
    server.stop()
    crowd(binary, body, expected)
    strangers(binary, IMAGE.read_bytes())
    stopped_under_load(binary, body, expected)


if __name__ == "__main__":
    main()
