"""The worker's half of `supervisor drill`: real sessions that take turns and write down what came back."""
