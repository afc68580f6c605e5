<?php

namespace App\Models;

class Integration extends CompanyRecord
{
}
