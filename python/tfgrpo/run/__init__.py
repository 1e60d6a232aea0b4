"""The public jobs: practise, evaluate, resume; load and check inputs, open what a run needs, finish it."""
