"""The finite set of palettes of every style: nothing in the input says which one a clip has, only its history does.

Six for each style, far enough apart to be told from one another through noise, dark colours first. What each colour is
for stands beside the style in `teacher.py`.
"""

PALETTES = {
    # ink, wash, paper, accent
    "ink": [
        "14141a 6f6d70 f4efe2 c8402c",  # sumi and vermilion
        "121c4a 5a74ad eef0ea d88a2e",  # indigo
        "3a2113 a5784e f3e3c3 2f6f73",  # sepia
        "0d3327 5b937a eaf3dc c8663c",  # pine
        "4d0f22 b8657a fae6e2 355c86",  # oxblood
        "e9f1f7 6f9cc4 0f2a52 ffcf5c",  # chalk on blue
    ],
    # shadow, low, middle, light: a colour grade
    "oil": [
        "1b1330 7a2f4a e07b39 ffe7a8",  # sunset
        "0a1a3f 1f5fa8 6fb7c9 fbe98a",  # starry night
        "10241c 3f6b3a a9b85a fbf3c4",  # meadow
        "260f1d 8f3a5b e79aa0 fff0e2",  # rose
        "1d1206 7c4a1c d9a13b fff2c0",  # amber
        "120f33 54419a b48fd6 fdeaff",  # violet dusk
    ],
    # night, haze, first tube, second tube
    "neon": [
        "07041a 2b1250 ff2d95 19e3ff",
        "020f14 063b3f 2dff9a ff9d2e",
        "0d0208 4a0d22 ff4a3d ffd23f",
        "04081f 10246a 3f7bff c86bff",
        "0a0614 3a1a4f b44cff fff06a",
        "021019 0a3550 25d0ff f4f8ff",
    ],
    # five sheets, from the deepest to the top one
    "papercut": [
        "16243f 274b73 4f8aa6 a9cfc4 f7f0dc",  # lake
        "3b1230 7d2145 c94a4f f2936b fde3c0",  # dusk
        "12291f 25543a 5c8f4d b3c66b f6f2cf",  # forest
        "2a1a4d 55358a 9460b8 d8a0cf fceaf0",  # orchid
        "402113 8a4a22 cf8434 edbf6a fdf3d8",  # desert
        "1d1145 0b6e74 e8574c f6b13c fff3d8",  # carnival
    ],
    # lead, cool glass, deep glass, warm glass, light
    "glass": [
        "0d0a12 1d56c4 8a1748 f2a51f fff3c9",  # cathedral
        "0b100c 0f8a6b 23408f e8c53a f4ffe6",  # emerald
        "120808 7c2a9c b01e2e ff8a3d ffeede",  # ruby
        "070d14 128fb8 243a9e 9fd8e8 f2fdff",  # aquamarine
        "100b05 5f7d1f 8c4512 f0b429 fff6d6",  # autumn
        "0e0813 b0308f 3c2aa0 ff8fb8 fff0fa",  # peony
    ],
    # depth, ice, pale ice, rime
    "frost": [
        "0b2545 3f83b8 a9d8ee fafeff",  # ice
        "06302f 2f9a86 9fe3c4 f6fff8",  # aurora
        "241a4a 7a68c0 c9bdf0 fdfaff",  # lilac
        "40162f b8658f f2bccb fff8f6",  # dawn
        "1a1f26 66727e b9c4cc fcfdfd",  # steel
        "3a2a12 b0893f ecd79a fffdf0",  # low sun
    ],
}
