# Debian packages by name, without root: sourced by the scripts beside it.
#
# The mirror and how to reach it (proxy, time-outs) are the machine's own; the
# index files, the caches and the dpkg status are private ones below a cache
# directory, so that the machine's apt is neither changed nor locked. Signatures
# are checked as apt always does.
# shellcheck shell=bash

export LC_ALL=C

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

for tool in apt-get apt-config dpkg dpkg-deb flock awk; do
    command -v "$tool" >/dev/null || die "needs $tool: this works on Debian and its derivatives"
done

# "URI SUITE SIGNED-BY" of the machine's first Debian archive, from one-line and
# deb822 sources (sources.list(5)). SIGNED-BY is "-" where none is named.
debian_mirror() {
    awk '
        function archive(uri) { return uri ~ /\/debian\/?$/ }
        function emit(uri, suite, key) {
            if (!found && archive(uri) && suite != "") {
                print uri, suite, (key == "" ? "-" : key)
                found = 1
            }
        }
        function end_of_stanza() {
            if (types ~ /(^| )deb( |$)/ && enabled !~ /^(no|false|0)$/) emit(uris, suites, key)
            types = uris = suites = key = enabled = ""
        }
        FNR == 1 { end_of_stanza() }
        /^#/ { next }
        FILENAME ~ /\.list$/ && $1 == "deb" {
            first = 2; named = ""
            if ($2 ~ /^\[/) {
                while (first < NF && $first !~ /\]$/) first++
                options = ""
                for (i = 2; i <= first; i++) options = options " " $i
                gsub(/[][]/, " ", options)
                if (match(options, /signed-by=[^ ]+/)) named = substr(options, RSTART + 10, RLENGTH - 10)
                first++
            }
            emit($first, $(first + 1), named)
            next
        }
        /^[ \t]*$/ { end_of_stanza(); next }
        tolower($1) == "types:" { types = substr($0, 8) }
        tolower($1) == "uris:" { uris = $2 }
        tolower($1) == "suites:" { suites = $2 }
        tolower($1) == "enabled:" { enabled = tolower($2) }
        tolower($1) == "signed-by:" && $2 ~ /^\// { key = $2 }
        END { end_of_stanza() }
    ' $(ls /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null)
}

# Lays the private apt directories for one suite and architecture ("source" for
# source packages) and points APT_CONFIG at them. The caller holds the lock.
private_apt() {
    local state=$1 architecture=$2 suite=$3 uri own_suite key options native line
    read -r uri own_suite key < <(debian_mirror) || die "no Debian archive in this machine's apt sources"
    suite=${suite:-$own_suite}
    native=$(dpkg --print-architecture)
    options=""
    [ "$key" = - ] || options="signed-by=$key"
    if [ "$architecture" = source ]; then
        line="deb-src [ $options ] $uri $suite main"
        architecture=$native
    else
        line="deb [ $options arch=$architecture ] $uri $suite main"
    fi
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    echo "$line" >"$state/sources.list"
    : >"$state/status"
    # Only how to fetch is taken over from the machine: its hooks, pins and extra
    # indexes (desktop metadata, translations) are none of ours. Proxies may carry
    # a password: nobody else reads the copy.
    (
        umask 077
        apt-config dump | grep '^Acquire::' | grep -v '^Acquire::\(IndexTargets\|Languages\)' || true
        cat <<CONF
Acquire::Languages "none";
Acquire::Retries "3";
APT::Architecture "$native";
APT::Architectures { "$native"; "$architecture"; };
APT::Sandbox::User "$(id -un)";
Dir::Cache "$state/";
Dir::Cache::archives "$state/archives/";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "$state/";
Dir::State::lists "$state/lists/";
Dir::State::status "$state/status";
CONF
    ) >"$state/apt.conf"
    export APT_CONFIG=$state/apt.conf
}

# Runs apt-get with the private directories; the index is fetched when there is
# none, and once more when what it names has gone from the mirror.
private_apt_get() {
    local state=$1
    shift
    [ -e "$state/updated" ] || private_apt_update "$state"
    apt-get -qq "$@" >"$state/log" 2>&1 && return
    private_apt_update "$state"
    apt-get -qq "$@" >"$state/log" 2>&1 || { cat "$state/log" >&2; return 1; }
}

private_apt_update() {
    apt-get -qq update >"$1/log" 2>&1 || { cat "$1/log" >&2; die "cannot fetch the package index"; }
    touch "$1/updated"
}

# Downloads packages of one architecture and unpacks each into
# CACHE/PACKAGE_ARCH[_SUITE]; what is there already is left. A directory appears
# only when it is whole.
fetch_packages() {
    local cache=$1 architecture=$2 suite=$3 state tail package missing work deb
    shift 3
    tail=_$architecture${suite:+_$suite}
    state=$cache/apt/$architecture${suite:+-$suite}
    mkdir -p "$state"
    (
        flock 9
        missing=()
        for package; do
            [ -d "$cache/$package$tail" ] || missing+=("$package:$architecture")
        done
        [ ${#missing[@]} -gt 0 ] || exit 0
        private_apt "$state" "$architecture" "$suite"
        work=$(mktemp -d "$cache/fetch.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        cd "$work"
        private_apt_get "$state" download "${missing[@]}" || die "cannot download ${missing[*]}"
        for deb in *.deb; do
            package=${deb%%_*}
            dpkg-deb -x "$deb" "$work/tree"
            chmod 755 "$work/tree"
            mv -T "$work/tree" "$cache/$package$tail"
        done
    ) 9>"$state/lock"
}
