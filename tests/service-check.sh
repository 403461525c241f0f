#!/bin/sh
# Runs the service unit under a real systemd, in namespaces of its own: start, watchdog, reload, a process that takes
# over, the end. As root.
#
#   sh tests/service-check.sh PROGRAM
#
# What differs from the unit: where the program and its settings are, a watchdog of 3 s, and a log in a file, as there is
# no journal.
set -eu
[ "$(id -u)" = 0 ] || { echo "systemd as a child of this needs root" >&2; exit 1; }
# The service sees nothing of /tmp and /home.
folder=$(mktemp -d /opt/anteroom-check.XXXXXX)
trap 'kill -KILL "$manager" 2> /dev/null || true; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cp "$1" "$folder/anteroom"
cat > "$folder/anteroom.toml" << END
upstream.url = "http://127.0.0.1:9"
listen.address = "127.0.0.1:0"
admin.address = "127.0.0.1:0"
drain.notice = "1s"
END
sed -e "s#/usr/local/bin/anteroom#$folder/anteroom#; s#/etc/anteroom/anteroom.toml#$folder/anteroom.toml#" \
	-e 's/^WatchdogSec=.*/WatchdogSec=3s/' -e '/^After=\|^Wants=/d' -e 's/^\[Unit\]/&\nDefaultDependencies=no/' \
	-e "s#^\[Service\]#&\nStandardOutput=append:$folder/log\nStandardError=append:$folder/log#" \
	config/anteroom.service > "$folder/anteroom.service"
printf '[Unit]\nDefaultDependencies=no\nWants=anteroom.service\n' > "$folder/check.target"

unshare --fork --pid --mount --uts --ipc --kill-child sh -c "
	mount --make-rprivate / && mount -t tmpfs tmpfs /run && mount -t proc proc /proc
	mkdir -p /run/systemd/system && cp $folder/*.service $folder/*.target /run/systemd/system/
	container=other exec /lib/systemd/systemd --system --unit=check.target --show-status=no" > "$folder/systemd.log" 2>&1 &
manager=$!

systemctl_in() {
	nsenter --target "$(pgrep --parent "$manager" systemd)" --mount --pid --ipc --uts systemctl "$@"
}
show() { # PROPERTY
	systemctl_in show anteroom --property "$1" --value 2> /dev/null || true
}
# Waits until a property is, or with "not" is no longer, a value.
until_is() { # PROPERTY VALUE [not]
	for _ in $(seq 150); do
		now=$(show "$1")
		if [ "${3:-}" = not ]; then
			[ -n "$now" ] && [ "$now" != "$2" ] && return
		else
			[ "$now" = "$2" ] && return
		fi
		sleep 0.1
	done
	echo "$1 is '$now'; expected ${3:-} '$2'" >&2
	tail -n 20 "$folder/log" "$folder/systemd.log" >&2
	exit 1
}
said() { # TEXT: waits for a line of the log
	for _ in $(seq 100); do
		grep -q "$1" "$folder/log" && return
		sleep 0.1
	done
	echo "the log has no line with: $1" >&2
	exit 1
}

until_is ActiveState active
echo "started, and told so"
main=$(show MainPID)
sleep 7
[ "$(show MainPID)" = "$main" ] || { echo "the watchdog took it for dead" >&2; exit 1; }
echo "alive after more than two times the watchdog's patience"

sed -i 's/"1s"/"2s"/' "$folder/anteroom.toml"
systemctl_in reload anteroom
said 'drain.notice 1s -> 2s'
echo 'nonsense = 1' >> "$folder/anteroom.toml"
if systemctl_in reload anteroom 2> /dev/null; then
	echo "a reload with mistakes in the settings succeeded" >&2
	exit 1
fi
sed -i '$d' "$folder/anteroom.toml"
[ "$(show MainPID)" = "$main" ]
echo "reloaded; mistakes in the settings change nothing"

systemctl_in kill --kill-whom=main --signal USR2 anteroom
until_is MainPID "$main" not
main=$(show MainPID)
sleep 9
[ "$(show NRestarts)" = 0 ] && [ "$(show MainPID)" = "$main" ] || {
	echo "the process that took over was taken for dead" >&2
	exit 1
}
echo "a new process has taken over, and the watchdog hears it"

systemctl_in kill --kill-whom=main --signal STOP anteroom
until_is NRestarts 1
until_is SubState running
echo "one that stands still is started again"

systemctl_in stop anteroom
until_is ActiveState inactive
[ "$(show Result)" = success ]
echo "stopped"
