"""Why does this wait: one explanation of a task or of an instance, for terminals, programs and pages alike.

What is known is gathered by `facts`; the words are pure functions of that.
"""

from daemon.explain.explanation import EXPLANATION, Explanation
from daemon.explain.facts import Ahead, ServiceFacts, oldest_of, tasks_ahead
from daemon.explain.instance import explain_instance
from daemon.explain.service import read_service
from daemon.explain.task import explain_task

__all__ = ["EXPLANATION", "Ahead", "Explanation", "ServiceFacts", "explain_instance", "explain_task", "oldest_of",
           "read_service", "tasks_ahead"]
