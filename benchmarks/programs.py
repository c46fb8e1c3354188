"""Reference solutions of HumanEval and MBPP as a model's answers: all of them must pass.

    hunyuan data benchmarks PACK DIR
    python benchmarks/programs.py DIR

The whole path of `hunyuan eval --run-code` but the model: prompts, judging, the sandbox. Prints
score, programs per second and the solutions that failed.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main() -> None:
    """Both benchmarks whole, and HumanEval once more as a conversation."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    from hunyuan.evaluate.run import Plan, evaluate
    from hunyuan.evaluate.run_folder import EvaluationRun
    from hunyuan.evaluate.suites import benchmarks

    for name, chat in (("humaneval", False), ("humaneval", True), ("mbpp", False)):
        subject = SimpleNamespace(model=reference_model(), truncated=0, takes_seed=False)
        subject.count_tokens = len
        plan = Plan(benchmarks=(benchmarks()[name],), data=data, run_code=True, chat=chat)
        with tempfile.TemporaryDirectory() as folder:
            run = EvaluationRun(Path(folder))
            began = time.perf_counter()
            (result,) = evaluate(subject, plan, run, progress=lambda *_: None).values()
            seconds = time.perf_counter() - began
            failed = [f"{item['doc_id']}" for item in run.items(name) if item["score"] != 1]
        score = result.score
        print(
            f"{name}{' (chat)' if chat else ''}: {100 * score.value:.2f} % of {score.items}, "
            f"{score.items / seconds:.1f} programs a second; failed: {', '.join(failed) or 'none'}",
            flush=True,
        )


def reference_model() -> Any:
    """A model of the harness that answers with the reference solution of the item."""
    from lm_eval.api.model import LM

    class Reference(LM):  # type: ignore[misc]
        tokenizer_name = "reference"
        chatting = False

        def generate_until(self, requests: Any) -> list[str]:
            answers = []
            for request in requests:
                doc = request.doc
                if "code" in doc:
                    answers.append(doc["code"])
                elif self.chatting:
                    whole = doc["prompt"] + doc["canonical_solution"]
                    answers.append(f"Here it is:\n```python\n{whole}\n```")
                else:
                    answers.append(doc["canonical_solution"])
            return answers

        def loglikelihood(self, requests: Any) -> Any:
            raise AssertionError

        loglikelihood_rolling = loglikelihood

        def apply_chat_template(self, history: Any, add_generation_prompt: bool = True) -> str:
            self.chatting = True
            return str(history[-1]["content"])

        def chat_template(self, chat_template: Any = False) -> str:
            return ""

    return Reference()


if __name__ == "__main__":
    main()
