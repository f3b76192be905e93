"""`--dask`: the hosts of a run are divided among the worker processes of a Dask cluster.

    client                        scheduler                    worker process, for its share of the hosts
    assemble, validate      ──────── estate, once ────────▶   unpack, assemble the same run, check local files
    one task per worker     ──────── host names ──────────▶   engine/run.py, with connections of its own
    reports, summary        ◀─────── events, plays ────────   batches, in order
    plays of other workers  ──────── plays, Ctrl-C ───────▶   engine/play_graph.py

`shipment` decides what leaves this machine. `scheduler` finds and prepares workers. `client` divides the hosts among them and
collects the results. `worker` has the functions that run there.

There is one Dask task for each worker process. More tasks would bring nothing, because all hosts of a run connect at its
start. The hosts of one process share `--forks`, the connections to jump hosts and the API tokens. When a worker is lost,
its unfinished hosts are divided among the others, as new tasks. A task leaves the worker's thread pool at once (`secede`),
so that a task that waits for other hosts does not block another task.

Each process has a graph of the plays. When a host has ended a play (`PlayEnded`), the client sends this report to the
graphs of all other processes.

The client fetches messages with a request that waits until there are some (`worker.fetch`). Dask's event topics would keep
them in the scheduler's memory after the run, and Dask's queues need a client in each worker. The same requests show each
side that the other one is alive. The scheduler passes the estate and the secrets on. It stores neither, because they are
not part of a Dask task: its stored state has only the names of hosts.
"""
