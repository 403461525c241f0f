#!/bin/sh
# What `make dist` made, used as those do who take it: the package linted, installed, run and removed in a clean tree; the
# image pushed to a registry, pulled, unpacked and run; the aarch64 program under emulation; the bill of materials against
# its schema. As root; needs debootstrap, lintian, skopeo, umoci, docker-registry, qemu-user-static and the network.
#
#   sh tests/dist.sh OUT BUILT SCRATCH
set -eu
out=$(realpath "$1") built=$(realpath "$2")
mkdir -p "$3"
scratch=$(realpath "$3")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
deb=$out/anteroom_$version-1
running=
trap 'for id in $running; do kill "$id" 2> /dev/null || true; done; umount "$scratch/tree/proc" 2> /dev/null || true' EXIT
say() { echo "dist: $1"; }
until_it() { # SECONDS COMMAND...: until it succeeds
	left=$(($1 * 10))
	shift
	until "$@" 2> /dev/null; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || { echo "in vain: $*" >&2; exit 1; }
		sleep 0.1
	done
}

(cd "$out" && sha256sum --check --quiet SHA256SUMS)
for arch in x86_64 aarch64; do
	case $(file --brief "$built/$arch/anteroom") in
	*static*stripped*) ;;
	*) file "$built/$arch/anteroom" >&2; exit 1 ;;
	esac
	rm -rf "$scratch/archive"
	mkdir "$scratch/archive"
	tar -xzf "$out/anteroom-$version-$arch-linux.tar.gz" -C "$scratch/archive"
	python3 -B deploy/dist/links.py check "$scratch/archive/anteroom-$version-$arch-linux" ||
		{ echo "links of the archive that lead nowhere" >&2; exit 1; }
done
say "checksums are right and the programs static"

lintian --fail-on error,warning --tag-display-limit 0 "${deb}_amd64.deb" "${deb}_arm64.deb"
say "lintian has nothing to say"

# A clean tree.
tree=$scratch/tree
[ -e "$tree/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$tree"
# A function would be a shell of its own in the background, and what it runs would outlive it.
clean="env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin"
in_tree() { $clean chroot "$tree" "$@"; }
mountpoint -q "$tree/proc" || mount -t proc proc "$tree/proc"
in_tree dpkg --purge anteroom > /dev/null 2>&1 || true
in_tree find / -xdev -not -path '/proc/*' -not -path '/var/*' -not -path '/tmp/*' | sort > "$scratch/before"
cp "${deb}_amd64.deb" "$tree/tmp/anteroom.deb"
in_tree dpkg --install /tmp/anteroom.deb > /dev/null
in_tree anteroom --version
in_tree sh -c 'cd /usr/share/man/man1 && for page in anteroom*.1.gz; do gzip -t "$page"; done'
in_tree dpkg --verify anteroom
python3 -B deploy/dist/links.py check "$tree/usr/share/doc/anteroom" || { echo "links of the package that lead nowhere" >&2; exit 1; }
# Without an upstream the settings are wrong, and it says so; the unit refuses to start with them.
refused=0
told=$(in_tree anteroom config --config /etc/anteroom/anteroom.toml 2>&1) || refused=$?
[ $refused = 2 ]
case $told in *upstream.url*) ;; *) echo "$told" >&2; exit 1 ;; esac
$clean chroot "$tree" anteroom demo --no-acts --listen 127.0.0.1:18741 --admin 127.0.0.1:18742 --stand-in 127.0.0.1:18743 > "$scratch/demo" 2>&1 &
running="$running $!"
until_it 20 in_tree anteroom ready --admin 127.0.0.1:18742
# The settings that came with it, with an upstream, as user nobody, as the unit would.
sed -i 's#^\#url = .*#url = "http://127.0.0.1:18743"#' "$tree/etc/anteroom/anteroom.toml"
in_tree anteroom config --config /etc/anteroom/anteroom.toml > /dev/null
$clean chroot --userspec=65534:65534 "$tree" anteroom serve --config /etc/anteroom/anteroom.toml \
	--listen 127.0.0.1:18744 --admin 127.0.0.1:18745 > "$scratch/serve" 2>&1 &
serving=$!
running="$running $serving"
until_it 20 in_tree anteroom ready --admin 127.0.0.1:18745
list=$(sed -n 's#^list=http://[^/]*##p' "$scratch/demo")
asked() { curl --silent --dump-header - --output /dev/null "http://127.0.0.1:$1$list" | tr -d '\r' | sed -n 's/^cache-status: //p'; }
asked 18744 | grep -q 'fwd=uri-miss'
asked 18744 | grep -q 'anteroom; hit'
kill -TERM $serving
wait $serving
say "the package is installed, and what is in it runs"
# Removed, its settings stay; purged, nothing does.
in_tree dpkg --remove anteroom > /dev/null 2>&1
grep -q 18743 "$tree/etc/anteroom/anteroom.toml"
in_tree dpkg --purge anteroom > /dev/null 2>&1
in_tree find / -xdev -not -path '/proc/*' -not -path '/var/*' -not -path '/tmp/*' | sort > "$scratch/after"
diff "$scratch/before" "$scratch/after"
say "purged, it leaves nothing"

# A registry that takes it, and gives it back as it was.
registry=127.0.0.1:18746
cat > "$scratch/registry.yml" << END
version: 0.1
storage:
  filesystem:
    rootdirectory: $scratch/registry
http:
  addr: $registry
END
rm -rf "$scratch/registry" "$scratch/pulled" "$scratch/single" "$scratch/unpacked"
docker-registry serve "$scratch/registry.yml" > "$scratch/registry.log" 2>&1 &
running="$running $!"
until_it 20 curl --silent --fail --output /dev/null "http://$registry/v2/"
rm -rf "$scratch/layout"
mkdir -p "$scratch/layout"
tar -xf "$out/anteroom-$version-oci.tar" -C "$scratch/layout"
skopeo copy --quiet --all --dest-tls-verify=false "oci-archive:$out/anteroom-$version-oci.tar:$version" "docker://$registry/anteroom:$version"
skopeo copy --quiet --all --src-tls-verify=false "docker://$registry/anteroom:$version" "oci:$scratch/pulled:$version"
for arch in amd64 arm64; do
	skopeo inspect --tls-verify=false --override-arch $arch --config "docker://$registry/anteroom:$version" |
		python3 -c "import json, sys; it = json.load(sys.stdin); assert it['architecture'] == '$arch', it; assert it['config']['User'] == '65532:65532' and it['config']['Labels']['org.opencontainers.image.version'] == '$version', it"
done
(cd "$scratch/layout/blobs/sha256" && sha256sum -- * | awk '$1 != $2 { print; bad = 1 } END { exit bad }')
diff -r "$scratch/layout/blobs" "$scratch/pulled/blobs"
say "a registry takes the image, for both architectures, and gives it back byte by byte"

# As an engine unpacks and runs it: nothing but the program and the certificates.
skopeo copy --quiet --override-arch amd64 "oci:$scratch/layout:$version" "oci:$scratch/single:$version"
umoci unpack --image "$scratch/single:$version" "$scratch/unpacked" > /dev/null 2>&1
(cd "$scratch/unpacked/rootfs" && find . -type f | sort) > "$scratch/files"
printf './anteroom\n./etc/ssl/certs/ca-certificates.crt\n' | diff - "$scratch/files"
chroot --userspec=65532:65532 "$scratch/unpacked/rootfs" /anteroom --version
$clean ANTEROOM_UPSTREAM__URL=http://127.0.0.1:18743 ANTEROOM_LISTEN__ADDRESS=127.0.0.1:18747 \
	ANTEROOM_ADMIN__ADDRESS=127.0.0.1:18748 chroot --userspec=65532:65532 "$scratch/unpacked/rootfs" /anteroom serve \
	> "$scratch/image.out" 2>&1 &
running="$running $!"
until_it 20 $clean ANTEROOM_ADMIN__ADDRESS=127.0.0.1:18748 chroot --userspec=65532:65532 "$scratch/unpacked/rootfs" /anteroom ready
asked 18747 | grep -q 'fwd=uri-miss'
asked 18747 | grep -q 'anteroom; hit'
say "the image runs as its user, in a tree that holds nothing else"

# The other architecture, emulated: all acts, each checked by the program itself.
qemu-aarch64-static "$built/aarch64/anteroom" --version
qemu-aarch64-static "$built/aarch64/anteroom" demo --listen 127.0.0.1:0 --admin 127.0.0.1:0 > "$scratch/aarch64" 2>&1 &
running="$running $!"
until_it 120 grep -q 'Every claim held\|did not hold: see' "$scratch/aarch64"
grep 'Every claim held' "$scratch/aarch64" || { cat "$scratch/aarch64" >&2; exit 1; }
say "the aarch64 program plays all acts"

PYTHONPATH=build/helm python3 -B - "$out/anteroom-chart-$version.tgz" << 'END'
import sys
import helm_python as helm

found = helm.lint(sys.argv[1], values={"upstreamUrl": "http://rails:3000"}, strict=True)
assert not [it for it in found["messages"] if it["severity"] > 1], found
END
say "the chart is one"

[ -d "$scratch/cyclonedx/cyclonedx" ] ||
	pip install --quiet --target "$scratch/cyclonedx" 'cyclonedx-python-lib[json-validation]==11.12.0'
PYTHONPATH=$scratch/cyclonedx python3 -B - "$out/anteroom-$version.cdx.json" << 'END'
import json, pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = pathlib.Path(sys.argv[1]).read_text()
wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
assert wrong is None, wrong
names = {it["name"] for it in json.loads(text)["components"]}
assert {"hyper", "tokio", "rustls", "tikv-jemallocator", "anteroom-stand-in"} <= names, names
assert not {"proptest", "criterion", "loom", "clap_mangen"} & names, names
END
say "the bill of materials fits its schema"
