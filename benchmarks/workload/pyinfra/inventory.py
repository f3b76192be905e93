"""The lab's hosts, from the benchmark's environment variable."""

import json
import os

hosts = [(one["name"], one["data"]) for one in json.loads(os.environ["BENCH_HOSTS"])]
