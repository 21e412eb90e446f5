"""Attacks the live view of a running stream for some minutes, and reports the cost compared with a run without attack: lost frames,
memory, CPU time, and the waiting time of another viewer.

Run it as `python3 tests/preview/attack.py target/release/eddy [MINUTES]`; needs nothing but Python. Attackers use
127.0.0.1, the viewer 127.0.0.2. It fails when a run ends, when memory grows by more than 48 MiB, or when the page is not
answered within two seconds.
"""

import itertools
import json
import random
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import time

WIDTH, HEIGHT, FPS = 160, 120, 10
MEMORY, PATIENCE = 48 << 20, 2.0
GET = b"GET /page.js HTTP/1.1\r\nHost: a\r\n\r\n"


class Run:
    """A run that is fed as a camera would, by the clock."""

    def __init__(self, binary):
        command = [binary, "denoise", "-", "--live", "-o", "-", "--sigma", "10", "--preview=0.0.0.0:0"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.fed, self.over = 0, False
        threading.Thread(target=self.feed, daemon=True).start()
        line = self.process.stderr.readline()
        self.port, self.token = re.search(rb"http://[^/]*:(\d+)/#token=(\S+)", line).groups()
        self.port, self.token = int(self.port), self.token.decode()
        self.said = []
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def feed(self):
        noise = [random.randbytes(WIDTH * HEIGHT).translate(bytes(118 + i // 10 for i in range(256))) for _ in range(8)]
        chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
        pipe, due = self.process.stdin, time.monotonic()
        try:
            pipe.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip C420jpeg\n".encode())
            while not self.over:
                pipe.write(b"FRAME\n" + noise[self.fed % 8] + chroma)
                pipe.flush()
                self.fed += 1
                due += 1 / FPS
                time.sleep(max(0, due - time.monotonic()))
            pipe.close()
        except BrokenPipeError:
            pass

    def figure(self, name):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"{name}:\s+(\d+)", status.read()).group(1))

    def processor(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            return sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13])) / 100

    def connect(self, source="127.0.0.1"):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(source, 0))

    def ask(self, path, source="127.0.0.2", token=None, body=b""):
        with self.connect(source) as connection:
            method, head = ("POST", "Content-Type: application/json\r\n") if body else ("GET", "")
            head += f"Authorization: Bearer {token or self.token}\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{head}\r\n".encode() + body)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


# Each attack is made again and again, by a thread of its own.


def long_body(run):
    with run.connect() as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999\r\n\r\n")
        connection.recv(1 << 16)


def endless_body(run):
    with run.connect() as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")


def endless_head(run):
    with run.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(1000):
            connection.sendall(b"a" * 65536)


def reset(run):
    connection = run.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sendall(random.choice([b"", b"G", GET, GET * 100]) or b"\n")
    connection.close()


def idle(run):
    connections = [run.connect() for _ in range(300)]
    time.sleep(3)
    for connection in connections:
        connection.close()


def slow(run):
    with run.connect() as connection:
        for byte in GET[:-1]:
            connection.sendall(bytes([byte]))
            time.sleep(0.5)


def unread(run):
    connections = [run.connect() for _ in range(8)]
    end = time.time() + 15
    for connection in connections:
        connection.settimeout(0.2)
    while time.time() < end and connections:
        for connection in list(connections):
            try:
                connection.sendall(GET * 50)
            except TimeoutError:
                time.sleep(0.1)
            except OSError:
                connections.remove(connection)


def guess(run):
    code, _ = run.ask("/status", "127.0.0.1", token=f"guess-{random.random()}")
    assert code in (401, 429), code
    time.sleep(0.005)


def nonsense(run):
    with run.connect() as connection:
        connection.sendall(random.choice([random.randbytes(2000), b"BREW / HTTP/1.1\r\n\r\n", b"GET\r\n\r\n", b"\0", GET[:-2]]))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)


def many_looks(run):
    """From one who has the token."""
    run.ask("/pair", "127.0.0.3")


ATTACKS = [long_body, endless_body, endless_head, reset, idle, slow, unread, guess, nonsense] + 8 * [many_looks]


def again(attack, run, counts):
    while not run.over:
        try:
            attack(run)
        except (OSError, IndexError):
            # Refused, reset or closed without an answer, as is meant.
            pass
        counts[attack.__name__] = counts.get(attack.__name__, 0) + 1
        time.sleep(0.002)


def watch(binary, seconds, attacks):
    run = Run(binary)
    try:
        return watched(run, seconds, attacks)
    except (OSError, IndexError) as problem:
        sys.exit(f"nothing is answered ({problem}); the run's exit code is {run.process.poll()}: {run.said}")
    finally:
        run.over = True
        run.process.kill()


def watched(run, seconds, attacks):
    counts, waits = {}, []
    while run.ask("/status")[0] != 200:
        time.sleep(0.1)
    began, memory, processor = time.time(), run.figure("VmRSS"), run.processor()
    for attack in attacks:
        threading.Thread(target=again, args=(attack, run, counts), daemon=True).start()
    for path in itertools.cycle(["/status", "/page.js", "/metrics"]):
        asked = time.time()
        code, body = run.ask(path)
        waits.append(time.time() - asked)
        assert code == 200, (path, code)
        if time.time() > began + seconds:
            break
        time.sleep(0.2)
    processor = (run.processor() - processor) / (time.time() - began)
    peak, now = run.figure("VmHWM"), run.figure("VmRSS")
    status = json.loads(run.ask("/status")[1])
    run.over = True
    code = run.process.wait(60)
    assert code == 0, (code, run.said)
    waits.sort()
    return {
        "frames given": run.fed,
        "frames read": status["read"],
        "frames written": status["written"],
        "frames dropped": status["dropped"],
        "frames late": status["late"],
        "latency p99, ms": round(status["latency_p99_ms"]),
        "VmRSS before, kB": memory,
        "VmRSS after, kB": now,
        "VmHWM, kB": peak,
        "processors busy": round(processor, 2),
        "wait of others, median, ms": round(1000 * waits[len(waits) // 2], 1),
        "wait of others, longest, ms": round(1000 * waits[-1], 1),
    }, counts


def main(binary, minutes="2"):
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    seconds = 60 * float(minutes)
    quiet, _ = watch(binary, seconds, [])
    attacked, counts = watch(binary, seconds, ATTACKS)
    print(f"{'':30}{'quiet':>12}{'attacked':>12}")
    for name in quiet:
        print(f"{name:30}{quiet[name]:>12}{attacked[name]:>12}")
    print("attacks:", ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    assert attacked["VmHWM, kB"] - quiet["VmHWM, kB"] < MEMORY >> 10, "memory grew"
    assert attacked["wait of others, longest, ms"] < 1000 * PATIENCE, "others waited too long"
    print("ok: the live view under attack")


if __name__ == "__main__":
    main(*sys.argv[1:])
