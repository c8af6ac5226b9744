"""The four ways in which B serves a round's phones: whose weights of B these are, and when they step.

A schedule's record names one of them; the server's forward, backward and learn then do it that way.

| way | B | steps | needs besides |
|---|---|---|---|
| in_turn | one for all | after each phone's backward | |
| own_copies | a copy for each phone | after each of its backwards | open before, close after |
| shared_step | one for all | once, on the gradients of several calls | step |
| joint_batch | one for all | once, on all batches as one | step |

In each a backward uses the weights of its forward. Here is only what B computes: the server has checked what arrived
before, and makes messages of what comes out.
"""
