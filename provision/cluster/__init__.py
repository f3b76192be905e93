"""`--dask`: the hosts of a run are divided among the worker processes of a Dask cluster.

    client                        scheduler                    worker process, for its share of the hosts
    assemble, validate      ──────── estate, once ────────▶   unpack, assemble the same run, check local files
    one task per worker     ──────── host names ──────────▶   engine/run.py, with connections of its own
    reports, summary        ◀─────── events, plays ────────   batches, in order
    plays of other workers  ──────── plays, Ctrl-C ───────▶   engine/play_graph.py

`shipment` decides what leaves this machine; `scheduler` finds and prepares workers; `client` conducts the run; `worker` is
what runs on the workers.

There is one Dask task for each worker process, not several: all hosts of a run connect at its start, so more tasks would
only start side by side. The hosts of one process share `--forks`, the connections to jump hosts and the API tokens. When a
worker is lost, its unfinished hosts are divided among the others, as new tasks. A task leaves the worker's thread pool
at once (`secede`): a task that waits for other hosts takes no place of another task.

The graph of plays exists in each process. What hosts report to it (`PlayEnded`) goes through the client to all others.

Messages are fetched by the client, with a request that waits until there are some (`worker.fetch`). Dask's event topics
would keep them in the scheduler's memory after the run, and its queues need a client in each worker. The same request is
the sign of life in both directions. Neither the estate nor a secret is part of a Dask task: the scheduler passes
them on, and its stored state has only the names of hosts.
"""
