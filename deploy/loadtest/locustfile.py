"""For those who know Locust: `locust -f deploy/loadtest/locustfile.py`; see README.md beside it."""

from pathlib import Path

from locust import FastHttpUser, constant_throughput, task

FRAME = Path(__file__).parent.parent.parent / "docs" / "noisy.jpg"


class Camera(FastHttpUser):
    """One frame a second, unless the last one is not back yet."""

    host = "http://127.0.0.1:3000"  # --host for another
    wait_time = constant_throughput(1)
    frame = FRAME.read_bytes()

    @task
    def denoise(self) -> None:
        headers = {"Content-Type": "image/jpeg"}
        with self.client.post("/v1/denoise", data=self.frame, headers=headers, catch_response=True) as answer:
            if answer.status_code == 429:
                answer.success()  # a full house says so; anything else that is not 200 fails
