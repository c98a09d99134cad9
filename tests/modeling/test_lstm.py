import torch

from gliner_pipe.modeling.lstm import BiLSTM


def test_padding_changes_no_number():
    torch.manual_seed(0)
    lstm = BiLSTM(8, 2).eval()
    words = torch.randn(3, 5, 8)
    lengths = torch.tensor([5, 3, 1])
    together = lstm(words, torch.arange(5) < lengths[:, None])
    for row, length in enumerate(lengths.tolist()):
        alone = lstm(words[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[row, :length], alone[0])
        assert not together[row, length:].any()
