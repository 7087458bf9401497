"""The paper behind each metric, as BibTeX."""

from __future__ import annotations

from .registry import get_card

PAPERS = {
    "leiq": """@inproceedings{sun2026leiq,
  title         = {{LEIQ-Assessor}: Multi-Dimensional Quality Assessment of Low-Light Enhanced Images via Multi-Task
                   Learning},
  author        = {Sun, Wei and Jiang, Yanwei and Zhu, Dandan and Sang, Jinqiu and Xu, Jikai and Zhang, Weixia and
                   Zhai, Guangtao},
  booktitle     = {International Conference on Quality of Multimedia Experience (QoMEX)},
  year          = {2026},
  eprint        = {2606.29752},
  archivePrefix = {arXiv}
}""",
    "iaca": """@article{chen2023gap,
  title         = {Gap-Closing Matters: Perceptual Quality Evaluation and Optimization of Low-Light Image Enhancement},
  author        = {Chen, Baoliang and Zhu, Lingyu and Zhu, Hanwei and Yang, Wenhan and Song, Linqi and Wang, Shiqi},
  journal       = {IEEE Transactions on Multimedia},
  year          = {2023},
  eprint        = {2302.11464},
  archivePrefix = {arXiv}
}""",
    "bmqa": """@article{wang2024blind,
  title         = {Blind Multimodal Quality Assessment of Low-Light Images},
  author        = {Wang, Miaohui and Xu, Zhuowei and Xu, Mai and Lin, Weisi},
  journal       = {International Journal of Computer Vision},
  year          = {2024},
  doi           = {10.1007/s11263-024-02239-9},
  eprint        = {2303.10369},
  archivePrefix = {arXiv}
}""",
    "niqe": """@article{mittal2013making,
  title   = {Making a ``Completely Blind'' Image Quality Analyzer},
  author  = {Mittal, Anish and Soundararajan, Rajiv and Bovik, Alan C.},
  journal = {IEEE Signal Processing Letters},
  volume  = {20},
  number  = {3},
  pages   = {209--212},
  year    = {2013},
  doi     = {10.1109/LSP.2012.2227726}
}""",
    "brisque": """@article{mittal2012no,
  title   = {No-Reference Image Quality Assessment in the Spatial Domain},
  author  = {Mittal, Anish and Moorthy, Anush Krishna and Bovik, Alan C.},
  journal = {IEEE Transactions on Image Processing},
  volume  = {21},
  number  = {12},
  pages   = {4695--4708},
  year    = {2012},
  doi     = {10.1109/TIP.2012.2214050}
}""",
    "piqe": """@inproceedings{venkatanath2015blind,
  title     = {Blind Image Quality Evaluation Using Perception Based Features},
  author    = {Venkatanath, N. and Praneeth, D. and Maruthi Chandrasekhar, Bh. and Channappayya, Sumohana S. and
               Medasani, Swarup S.},
  booktitle = {Twenty First National Conference on Communications (NCC)},
  pages     = {1--6},
  year      = {2015},
  doi       = {10.1109/NCC.2015.7084843}
}""",
    "loe": """@article{wang2013naturalness,
  title   = {Naturalness Preserved Enhancement Algorithm for Non-Uniform Illumination Images},
  author  = {Wang, Shuhang and Zheng, Jin and Hu, Hai-Miao and Li, Bo},
  journal = {IEEE Transactions on Image Processing},
  volume  = {22},
  number  = {9},
  pages   = {3538--3548},
  year    = {2013},
  doi     = {10.1109/TIP.2013.2261309}
}""",
    "loe-lime": """@article{guo2017lime,
  title   = {{LIME}: Low-Light Image Enhancement via Illumination Map Estimation},
  author  = {Guo, Xiaojie and Li, Yu and Ling, Haibin},
  journal = {IEEE Transactions on Image Processing},
  volume  = {26},
  number  = {2},
  pages   = {982--993},
  year    = {2017},
  doi     = {10.1109/TIP.2016.2639450}
}""",
    "exposure": """@inproceedings{guo2020zero,
  title     = {Zero-Reference Deep Curve Estimation for Low-Light Image Enhancement},
  author    = {Guo, Chunle and Li, Chongyi and Guo, Jichang and Loy, Chen Change and Hou, Junhui and Kwong, Sam and
               Cong, Runmin},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {1780--1789},
  year      = {2020}
}""",
    "colorfulness": """@inproceedings{hasler2003measuring,
  title     = {Measuring Colorfulness in Natural Images},
  author    = {Hasler, David and S{\\"u}sstrunk, Sabine E.},
  booktitle = {Human Vision and Electronic Imaging VIII, Proc. SPIE 5007},
  pages     = {87--95},
  year      = {2003},
  doi       = {10.1117/12.477378}
}""",
    "contrast": """@article{peli1990contrast,
  title   = {Contrast in Complex Images},
  author  = {Peli, Eli},
  journal = {Journal of the Optical Society of America A},
  volume  = {7},
  number  = {10},
  pages   = {2032--2040},
  year    = {1990},
  doi     = {10.1364/JOSAA.7.002032}
}""",
    "entropy": """@article{shannon1948mathematical,
  title   = {A Mathematical Theory of Communication},
  author  = {Shannon, Claude E.},
  journal = {Bell System Technical Journal},
  volume  = {27},
  number  = {3 and 4},
  pages   = {379--423, 623--656},
  year    = {1948},
  doi     = {10.1002/j.1538-7305.1948.tb01338.x}
}""",
    "noise": """@article{immerkaer1996fast,
  title   = {Fast Noise Variance Estimation},
  author  = {Immerk{\\ae}r, John},
  journal = {Computer Vision and Image Understanding},
  volume  = {64},
  number  = {2},
  pages   = {300--302},
  year    = {1996},
  doi     = {10.1006/cviu.1996.0060}
}""",
}


def bibtex(name: str) -> str:
    """Return the BibTeX entry of the paper behind a metric.

    Raises:
        ValueError: no such metric, or one whose paper is not listed; the message names the card's source.
    """
    card = get_card(name)
    if card.bibtex:
        return card.bibtex
    for key in (name, name.split("-")[0]):  # leiq-b16 is of leiq's paper
        if key in PAPERS:
            return PAPERS[key]
    raise ValueError(f"no BibTeX is listed for {name}; its card says: {card.source}")
