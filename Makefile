.PHONY: fuzz
# The parsers of strangers' bytes, a fixed number of inputs each, on the stable toolchain. Debug assertions are on.
fuzz: ## Feed the pass over lists half a million mutated samples
	ANTEROOM_FUZZ_EXECUTIONS=500000 cargo test --test fuzz_payload
