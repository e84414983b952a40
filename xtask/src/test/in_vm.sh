# Runs in the lab's virtual machine. Each stage leaves a log, and a line in /results/stages with
# its name, its status and how many seconds it took.
set -u
export BULKHEAD_BPF_OBJECT=/payload/bulkhead.bpf.o

stage() { # NAME SECONDS COMMAND...
	name=$1 limit=$2
	shift 2
	echo "in the virtual machine: $name"
	begin=$(date +%s)
	timeout -k 20 "$limit" "$@" >"/results/$name.log" 2>&1
	echo "$name $? $(($(date +%s) - begin))" >>/results/stages
}

# shellcheck disable=SC2016
stage features 120 sh -c './bulkhead-agent @ASK@ >/results/features.json'
for names in names/*; do
	name=${names#names/}
	# shellcheck disable=SC2046 # names of tests have no spaces
	stage "$name" 1200 "./$name" @OPTIONS@ $(cat "$names")
done
[ @SHOWS@ = yes ] || exit 0
stage demo 600 ./bh-demo --on vm --patience @PATIENCE@ --report /results/demo.json
stage sabotages 1200 ./bh-demo --on vm --patience @PATIENCE@ --report /results/sabotages.json \
	--only limits --all-sabotages
