# Helpers of scripts/engine: messages, the cache, and products that are built once.
# shellcheck shell=bash

make_cache() {
	if ((EUID == 0)); then
		cache=${PYTEST_LIMA_ENGINE_CACHE:-/var/cache/pytest-lima}
	else
		cache=${PYTEST_LIMA_ENGINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pytest-lima-engine}
	fi
	mkdir -p "$cache"
	cache=$(cd "$cache" && pwd)
}

say() {
	printf 'engine: %s\n' "$*" >&2
}

die() {
	say "$@"
	exit 1
}

hash_of() {
	if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c1-12
}

# hash_files FILE...: changes with any of their contents.
hash_files() {
	cat "$@" | hash_of
}

# locked NAME COMMAND...: one at a time on this machine (where flock exists: on Linux).
locked() {
	local lock=$cache/$1.lock
	shift
	if ! command -v flock >/dev/null; then
		"$@"
		return
	fi
	(
		exec 9>"$lock"
		flock 9
		# What the command starts must not hold the lock after it.
		"$@" 9>&-
	)
}

# product KIND KEY: where it is, or will be.
product() {
	echo "$cache/$1-$2"
}

# build_once KIND KEY COMMAND...: `COMMAND... FOLDER` fills a folder of its own; a link with the
# product's name appears when that is complete, so nobody ever sees half of one.
build_once() {
	local link
	link=$(product "$1" "$2")
	if [[ -e $link ]]; then
		# Says that it is in use; see forget_old.
		touch -h "$link"
	else
		locked "$1-$2" build_now "$@"
	fi
}

build_now() {
	local kind=$1 link folder log
	link=$(product "$1" "$2")
	shift 2
	[[ ! -e $link ]] || return 0
	folder=$(mktemp -d "$link.XXXXXX")
	log=$cache/$kind.log
	local begin=$SECONDS
	say "building the $kind (log: $log) ..."
	chmod 755 "$folder"
	if ! "$@" "$folder" >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		rm -rf "$folder"
		die "could not build the $kind; the lines above are the end of $log"
	fi
	ln -sfn "$(basename "$folder")" "$link.new"
	mv -f "$link.new" "$link"
	say "the $kind is ready ($((SECONDS - begin)) s)"
	forget_old "$kind"
}

# Each change of its inputs leaves a product behind: it goes when nobody used it for a week.
forget_old() {
	local old
	find "$cache" -maxdepth 1 -type l -name "$1-*" -mtime +7 | while read -r old; do
		rm -rf "$old" "$old".??????
	done
}
