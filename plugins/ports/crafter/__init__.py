"""VideoCrafter1, VideoCrafter2 (github.com/AILab-CVC/VideoCrafter) and Doubiiu's DynamiCrafter."""
