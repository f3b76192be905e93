#!/bin/sh
# Builds what the tests on real hosts need, if the cache does not have it: base images, their package repositories, prepared hosts, container images.
# Run as root, beside `make check`. Argument: the environment's bin folder.
set -eu
bin=$1
# Compile the test modules with pytest once. Otherwise all workers compile them at the same time.
"$bin/pytest" -q --collect-only tests/lab tests/faults tests/standins tests/property >/dev/null
"$bin/python" - <<'PYTHON'
from provision_lab import preparing, repository
from provision_lab.container_images import BUILDAH, HUB
from provision_lab.image import Image

for image in (Image(), Image("bookworm"), Image.like("ubuntu-26.04")):
    repository.ensure(image)
preparing.ensure(Image())
for one in (BUILDAH, *HUB.values()):
    one.ensure()
PYTHON
