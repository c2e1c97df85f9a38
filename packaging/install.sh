#!/bin/sh
# Installs Chartgate from this folder where there is no Debian package: the program, its manual and completions, a user of
# its own and the service. Run as root. A second run upgrades; configuration and data are never touched.
set -eu
cd "$(dirname "$0")"

if [ "$(id -u)" != 0 ]; then
    echo "install.sh: run it as root; it makes a user and a system service" >&2
    exit 1
fi
if [ ! -x ./chartgate ]; then
    echo "install.sh: the program \`chartgate\` is not beside this script; unpack the whole archive first" >&2
    exit 1
fi

install -D -m 755 chartgate /usr/bin/chartgate
install -D -m 644 chartgate.service /etc/systemd/system/chartgate.service
install -D -m 644 chartgate.sysusers /usr/lib/sysusers.d/chartgate.conf
install -D -m 644 chartgate.tmpfiles /usr/lib/tmpfiles.d/chartgate.conf
install -D -m 644 config.toml /usr/share/doc/chartgate/config.toml
/usr/bin/chartgate man --out /usr/share/man/man1
mkdir -p /usr/share/bash-completion/completions
/usr/bin/chartgate completions bash > /usr/share/bash-completion/completions/chartgate

if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers chartgate.conf
    systemd-tmpfiles --create chartgate.conf
else
    echo "install.sh: there is no systemd-sysusers here; make the user \`chartgate\` and the folder /etc/chartgate yourself" >&2
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if systemctl is-active --quiet chartgate; then
        systemctl restart chartgate
        echo "Chartgate was upgraded and restarted."
        exit 0
    fi
fi
echo "Chartgate is installed and not running yet. Next:"
echo "  sudo -u chartgate chartgate init --public-url https://connect.clinic.example"
echo "  sudo systemctl enable --now chartgate"
