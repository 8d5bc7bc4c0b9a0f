#!/bin/sh
# Debian's sshd, rsync, Open MPI and Slurm for the launchers' tests, and Chromium for the report's, where they are missing and
# can be installed; no daemon is started. Tests that lack a package say so and are skipped.
set -eu
missing=""
for pair in sshd:openssh-server ssh:openssh-client rsync:rsync ip:iproute2 openssl:openssl mpirun:openmpi-bin \
    slurmctld:slurmctld slurmd:slurmd srun:slurm-client munged:munge; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" > /dev/null || missing="$missing ${pair#*:}"
done
browser=""      # any will do; distributions name it differently, and its absence must not keep the others away
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then browser=$name; fi
done
[ -n "$missing" ] || [ -z "$browser" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    [ -n "$browser" ] || missing="$missing chromium"
    echo "not installed:$missing (not root, or no apt-get); the tests that need them will be skipped"
    exit 0
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then     # installing a daemon must not start it
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
if [ -n "$missing" ]; then
    echo "installing$missing"
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
fi
if [ -z "$browser" ]; then
    echo "installing chromium-headless-shell"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell > /dev/null \
        || echo "not installed: chromium-headless-shell; the browser tests will be skipped"
fi
