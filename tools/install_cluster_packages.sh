#!/bin/sh
# Debian's sshd, rsync, Open MPI and Slurm for the launchers' tests, where they are missing and can be installed; no daemon
# is started. Tests that lack a package say so and are skipped.
set -eu
missing=""
for pair in sshd:openssh-server ssh:openssh-client rsync:rsync ip:iproute2 openssl:openssl mpirun:openmpi-bin \
    slurmctld:slurmctld slurmd:slurmd srun:slurm-client munged:munge; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" > /dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "not installed:$missing (not root, or no apt-get); the tests that need them will be skipped"
    exit 0
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then     # installing a daemon must not start it
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
echo "installing$missing"
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
