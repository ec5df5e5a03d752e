"""The model: loading, prompts, sampling, and log-probs of completions."""

from harness.policy.log_probs import completion_log_probs
from harness.policy.policy import Policy, load_policy
from harness.policy.prompt import Prompt, PromptBatch
from harness.policy.sampling import Completions, sample

__all__ = ["Completions", "Policy", "Prompt", "PromptBatch", "completion_log_probs", "load_policy", "sample"]
